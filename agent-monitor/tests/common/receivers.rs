//! Real syslog receivers on loopback: rsyslog (Debian's packages `rsyslog` and
//! `rsyslog-gnutls`) and syslog-ng (which setup unpacks: Debian installs one of the two).

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A process that is killed when dropped.
pub struct Child(pub std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A receiver, and what it wrote: a message a line, its parts divided by tabs.
pub struct Receiver {
    folder: TempDir,
    command: Command,
    child: Option<Child>,
}

impl Receiver {
    /// rsyslogd with these inputs (and modules for them) in its configuration, in which
    /// `@` stands for its folder. A line has the header's fields, the structured data, and
    /// the message.
    pub fn rsyslog(folder: TempDir, inputs: &str) -> Self {
        let text = format!(
            r#"$MaxMessageSize 256k
global(workDirectory="@")
{inputs}
template(name="out" type="string" string="%syslogpriority-text% %timereported:::date-rfc3339% %hostname% %app-name% %msgid%\t%structured-data%\t%msg%\n")
action(type="omfile" file="@/out" template="out")
"#
        );
        let config = write(&folder, "rsyslog.conf", &text);
        let mut command = Command::new("/usr/sbin/rsyslogd");
        command.arg("-n").arg("-f").arg(config);
        command.arg("-i").arg(folder.path().join("pid"));
        Self::start(folder, command)
    }

    /// syslog-ng with these sources, as [`Receiver::rsyslog`].
    pub fn syslog_ng(folder: TempDir, sources: &str) -> Self {
        let text = format!(
            r#"@version: 3.38
options {{ log-msg-size(262144); keep-hostname(yes); keep-timestamp(yes); stats-freq(0); }};
source s {{ {sources} }};
destination d {{
    file("@/out" template("$PRIORITY $ISODATE $HOST $PROGRAM $MSGID\t$SDATA\t$MSG\n"));
}};
log {{ source(s); destination(d); }};
"#
        );
        let config = write(&folder, "syslog-ng.conf", &text);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/syslog-ng");
        let libraries = root.join("usr/lib/syslog-ng");
        let mut modules = std::ffi::OsString::from("--module-path=");
        modules.push(libraries.join("3.38"));
        let mut command = Command::new(root.join("usr/sbin/syslog-ng"));
        command
            .args(["--foreground", "--no-caps"])
            .arg(modules)
            .arg("--cfgfile")
            .arg(config)
            .env("LD_LIBRARY_PATH", &libraries);
        for (option, name) in [
            ("--persist-file", "persist"),
            ("--pidfile", "pid"),
            ("--control", "control"),
        ] {
            command.arg(option).arg(folder.path().join(name));
        }
        Self::start(folder, command)
    }

    fn start(folder: TempDir, command: Command) -> Self {
        let mut receiver = Self {
            folder,
            command,
            child: None,
        };
        receiver.run();
        receiver
    }

    /// Starts it again.
    pub fn run(&mut self) {
        // Its pid may be another's by now.
        let _ = fs::remove_file(self.folder.path().join("pid"));
        let child = self
            .command
            .stdin(Stdio::null())
            .spawn()
            .expect("this test runs rsyslog and syslog-ng: `cargo xtask setup` brings them");
        self.child = Some(Child(child));
    }

    /// As the kernel does when memory runs out.
    pub fn kill(&mut self) {
        self.child = None;
    }

    /// Where it keeps its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The parts of every whole line so far.
    pub fn lines(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.path("out")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect()
    }
}

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let file = folder.path().join(name);
    let path = folder.path().to_str().expect("a plain path");
    let text = text.replace("\"@", &format!("\"{path}"));
    fs::write(&file, text).expect("the folder is ours");
    file
}

/// A port that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("it is bound").port()
}

/// Makes a CA, and certificates of it for 127.0.0.1 and for a client, with openssl.
pub fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .output()
            .expect("openssl runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {errors}");
    };
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!(
        "req -x509 {curve} -keyout ca.key -out ca.pem -subj /CN=ca -days 2"
    ));
    fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1").unwrap();
    for name in ["server", "client"] {
        openssl(&format!(
            "req {curve} -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile san"
        ));
    }
}
