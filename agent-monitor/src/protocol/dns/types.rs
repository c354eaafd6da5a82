//! Numbers of the DNS protocol and their names (IANA, "Domain Name System
//! Parameters"). What has no name here is kept as its number.

use std::borrow::Cow;

/// A record's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Type(pub u16);

impl Type {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// Name server.
    pub const NS: Self = Self(2);
    /// The name that is meant.
    pub const CNAME: Self = Self(5);
    /// Begin of a zone.
    pub const SOA: Self = Self(6);
    /// Anything; iodine's favourite.
    pub const NULL: Self = Self(10);
    /// A name, often of an address.
    pub const PTR: Self = Self(12);
    /// Mail server.
    pub const MX: Self = Self(15);
    /// Text.
    pub const TXT: Self = Self(16);
    /// IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Service.
    pub const SRV: Self = Self(33);
    /// A name that stands for all below another.
    pub const DNAME: Self = Self(39);
    /// EDNS (RFC 6891): no record, but options of the message.
    pub const OPT: Self = Self(41);

    /// Its name; `TYPE` and the number if it has none here (RFC 3597, 5).
    pub fn name(self) -> Cow<'static, str> {
        let name = match self.0 {
            1 => "A",
            2 => "NS",
            5 => "CNAME",
            6 => "SOA",
            10 => "NULL",
            12 => "PTR",
            13 => "HINFO",
            15 => "MX",
            16 => "TXT",
            25 => "KEY",
            28 => "AAAA",
            29 => "LOC",
            33 => "SRV",
            35 => "NAPTR",
            37 => "CERT",
            39 => "DNAME",
            41 => "OPT",
            43 => "DS",
            44 => "SSHFP",
            46 => "RRSIG",
            47 => "NSEC",
            48 => "DNSKEY",
            50 => "NSEC3",
            52 => "TLSA",
            64 => "SVCB",
            65 => "HTTPS",
            251 => "IXFR",
            252 => "AXFR",
            255 => "ANY",
            257 => "CAA",
            number => return Cow::Owned(format!("TYPE{number}")),
        };
        Cow::Borrowed(name)
    }
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

impl Code {
    /// It was answered; there may be no record of the type.
    pub const NOERROR: Self = Self(0);

    /// Its name; `RCODE` and the number if it has none here.
    pub fn name(self) -> Cow<'static, str> {
        let name = match self.0 {
            0 => "NOERROR",
            1 => "FORMERR",
            2 => "SERVFAIL",
            3 => "NXDOMAIN",
            4 => "NOTIMP",
            5 => "REFUSED",
            6 => "YXDOMAIN",
            7 => "YXRRSET",
            8 => "NXRRSET",
            9 => "NOTAUTH",
            10 => "NOTZONE",
            number => return Cow::Owned(format!("RCODE{number}")),
        };
        Cow::Borrowed(name)
    }
}
