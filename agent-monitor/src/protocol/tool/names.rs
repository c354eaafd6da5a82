//! Tunnel programs and services, by the name of the server they talk to.

/// Names, and whose they are; a name below one counts too.
const SERVERS: &[(&str, &str)] = &[
    ("argotunnel.com", "cloudflared"),
    ("cftunnel.com", "cloudflared"),
    ("api.trycloudflare.com", "cloudflared"),
    ("ngrok-agent.com", "ngrok"),
    ("tunnel.ngrok.com", "ngrok"),
    ("tunnels.api.visualstudio.com", "VS Code tunnel"),
    ("controlplane.tailscale.com", "Tailscale"),
    ("ssh.tmate.io", "tmate"),
    ("uptermd.upterm.dev", "upterm"),
    ("serveo.net", "serveo"),
    ("localhost.run", "localhost.run"),
    ("a.pinggy.io", "pinggy"),
    ("bore.pub", "bore"),
    ("localtunnel.me", "localtunnel"),
];

/// The program or service that is reached at this name.
pub fn tool(name: &str) -> Option<&'static str> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_below = |server: &str| {
        let before = name.strip_suffix(server);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    // Its relays are derp1.tailscale.com, derp2a.tailscale.com and so on.
    if name.starts_with("derp") && is_below("tailscale.com") {
        return Some("Tailscale");
    }
    SERVERS
        .iter()
        .find(|(server, _)| is_below(server))
        .map(|(_, tool)| *tool)
}

#[cfg(test)]
mod tests {
    use super::tool;

    #[test]
    fn names_and_what_is_below_them_tell_the_tool() {
        for (name, expected) in [
            ("connect.ngrok-agent.com", Some("ngrok")),
            ("Tunnel.NGROK.com.", Some("ngrok")),
            ("h2.cftunnel.com", Some("cloudflared")),
            (
                "euw.rel.tunnels.api.visualstudio.com",
                Some("VS Code tunnel"),
            ),
            ("derp3d.tailscale.com", Some("Tailscale")),
            ("tailscale.com", None),
            ("notserveo.net", None),
            ("serveo.net.example", None),
            ("ngrok.com", None),
            ("", None),
        ] {
            assert_eq!(tool(name), expected, "{name}");
        }
    }
}
