//! Which coins are mined, by dialect and by the shape of a wallet.

/// Coins of a protocol that only some are mined with.
pub(super) fn of_dialect(dialect: &str) -> Option<&'static str> {
    match dialect {
        "xmrig" | "browser" => Some("Monero and its kin"),
        "eth-proxy" | "stratum-eth1" | "stratum-eth2" => Some("Ethereum's kin (Ethash)"),
        "getwork" | "stratum-v2" => Some("Bitcoin and its kin"),
        _ => None,
    }
}

/// The coin whose addresses look like this; a worker's name may follow.
pub(super) fn of_wallet(login: &str) -> Option<&'static str> {
    if login.starts_with("kaspa:") {
        return Some("Kaspa");
    }
    let wallet = login.split(['.', '/', '+', ':', ' ']).next()?;
    let length = wallet.len();
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| wallet.starts_with(prefix));
    if let Some(hex) = wallet.strip_prefix("0x") {
        let is_address = hex.len() == 40 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        return is_address.then_some("Ethereum's kin (Ethash)");
    }
    if (starts(&["bc1"]) && (42..=62).contains(&length)) || (starts(&["ltc1"]) && length > 42) {
        let bitcoin = starts(&["bc1"]);
        return is_lower(wallet).then_some(if bitcoin { "Bitcoin" } else { "Litecoin" });
    }
    if starts(&["zs1"]) && length == 78 {
        return is_lower(wallet).then_some("Zcash (Equihash)");
    }
    if !is_base58(wallet) {
        return None;
    }
    match length {
        // Standard, sub- and integrated addresses.
        95 | 106 if starts(&["4", "8"]) => Some("Monero"),
        35 if starts(&["t1", "t3"]) => Some("Zcash (Equihash)"),
        34 if starts(&["R"]) => Some("Ravencoin (KawPow)"),
        34 if starts(&["D"]) => Some("Dogecoin"),
        33 | 34 if starts(&["L", "M"]) => Some("Litecoin"),
        26..=35 if starts(&["1", "3"]) => Some("Bitcoin"),
        51 if starts(&["9"]) => Some("Ergo (Autolykos)"),
        _ => None,
    }
}

/// Bitcoin's alphabet: no 0, O, I and l.
fn is_base58(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() && !b"0OIl".contains(&byte))
}

fn is_lower(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wallets_are_told_by_their_shape() {
        let monero = format!("4{}", "4".repeat(94));
        let ether = format!("0x{}.rig", "1a".repeat(20));
        for (login, coin) in [
            (monero.as_str(), Some("Monero")),
            (&format!("{monero}.rig/mail@example"), Some("Monero")),
            (&ether, Some("Ethereum's kin (Ethash)")),
            (
                "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq.w1",
                Some("Bitcoin"),
            ),
            ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", Some("Bitcoin")),
            ("kaspa:qqexample.rig", Some("Kaspa")),
            ("team.worker1", None),
            ("0xyz", None),
            ("", None),
        ] {
            assert_eq!(of_wallet(login), coin, "{login}");
        }
    }
}
