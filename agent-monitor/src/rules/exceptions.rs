//! `exceptions`: what a rule lets pass, by agent, image, label, destination
//! or program. An entry holds when all that it names does.

use std::net::IpAddr;

use ipnet::IpNet;

use super::detection::Context;
use super::keys::{Keys, Report, text};
use super::problem::quoted;
use super::text::{Pattern, Place, TextSet};
use super::vars::Item;
use super::yaml::Node;
use crate::enrich::selector::Selector;
use crate::event::{Address, Agent, Process};

/// Who did what, as far as exceptions ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deed<'e> {
    /// The agent.
    pub agent: Option<&'e Agent>,
    /// The process.
    pub process: Option<&'e Process>,
    /// The other end.
    pub remote: Option<Address>,
    /// The other end's name, as far as the agent's own traffic tells it.
    pub name: Option<&'e str>,
}

/// One exception.
#[derive(Debug, Default)]
pub struct Exception {
    agents: Vec<Selector>,
    labels: Vec<Selector>,
    images: Option<TextSet>,
    binaries: Option<TextSet>,
    destinations: Vec<Destination>,
}

#[derive(Debug)]
enum Destination {
    /// A network, at any port or at one.
    Net(IpNet, Option<u16>),
    /// Names.
    Names(TextSet),
    /// A variable: what an agent's own entry says, else what it is for all.
    Variable(Vec<(Vec<Selector>, Vec<Destination>)>, Vec<Destination>),
}

impl Exception {
    /// Reads the entries of `exceptions`.
    pub fn read_all(node: &Node, context: &Context<'_>, report: &mut Report<'_>) -> Vec<Self> {
        let entries = node.items().iter();
        entries
            .filter_map(|entry| Self::read(entry, context, report))
            .collect()
    }

    fn read(node: &Node, context: &Context<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut keys = Keys::new(node, "an exception", report)?;
        let mut exception = Self::default();
        if let Some(agents) = keys.get("agent") {
            exception.agents = super::vars::selectors(agents, report);
        }
        for label in keys.texts("label", report) {
            let selector = format!("label:{}", label.text().unwrap_or_default());
            match selector.parse() {
                Ok(selector) => exception.labels.push(selector),
                Err(error) => report.add(&label.span, format!("{error}"), None),
            }
        }
        exception.images = patterns(keys.texts("image", report), report);
        exception.binaries = patterns(keys.texts("binary", report), report);
        for destination in keys.texts("destination", report) {
            let given = destination.text().unwrap_or_default();
            let found = match given.strip_prefix('%').and_then(|it| it.strip_suffix('%')) {
                Some(name) => Destination::variable(name, context, report),
                None => Destination::parse(given),
            };
            match found {
                Ok(known) => exception.destinations.push(known),
                Err(message) => report.add(&destination.span, message, None),
            }
        }
        if let Some(reason) = keys.get("reason") {
            text("reason", reason, report);
        }
        keys.end("an exception", report);
        if exception.is_empty() {
            let message = "an exception that names nothing would let everything pass";
            let help = "name an `agent`, `image`, `label`, `destination` or `binary`".to_owned();
            report.add(&node.span, message, Some(help));
            return None;
        }
        Some(exception)
    }

    fn is_empty(&self) -> bool {
        self.agents.is_empty()
            && self.labels.is_empty()
            && self.images.is_none()
            && self.binaries.is_none()
            && self.destinations.is_empty()
    }

    /// Selectors that it asks for.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.agents.iter().chain(&self.labels)
    }

    /// Whether it lets this pass. What is not known is never let pass.
    pub fn covers(&self, deed: &Deed<'_>) -> bool {
        let chosen = |selectors: &[Selector]| {
            selectors.is_empty()
                || deed
                    .agent
                    .is_some_and(|agent| selectors.iter().any(|it| it.chooses(agent)))
        };
        let image = || deed.agent?.container.as_ref()?.image.as_deref();
        let binary = || deed.process?.exe.as_deref();
        let text = |set: &Option<TextSet>, value: Option<&str>| match set {
            Some(set) => value.is_some_and(|value| set.matches(value)),
            None => true,
        };
        chosen(&self.agents)
            && chosen(&self.labels)
            && text(&self.images, image())
            && text(&self.binaries, binary())
            && (self.destinations.is_empty() || self.destinations.iter().any(|it| it.is_of(deed)))
    }
}

fn patterns(items: Vec<&Node>, report: &mut Report<'_>) -> Option<TextSet> {
    let first = items.first()?;
    let texts = items.iter().filter_map(|item| item.text());
    let patterns = texts
        .map(|text| Pattern::parse(text, Place::Whole))
        .collect();
    match TextSet::new(patterns, true) {
        Ok(set) => Some(set),
        Err(message) => {
            report.add(&first.span, message, None);
            None
        }
    }
}

impl Destination {
    fn parse(text: &str) -> Result<Self, String> {
        let net = |text: &str| {
            let ip = text.parse::<IpAddr>().map(IpNet::from);
            ip.or_else(|_| text.parse::<IpNet>().map(|net| net.trunc()))
                .ok()
        };
        if let Some(net) = net(text) {
            return Ok(Self::Net(net, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        match (net(bare), port.map(str::parse::<u16>)) {
            (Some(net), Some(Ok(port))) => Ok(Self::Net(net, Some(port))),
            (None, None)
                if text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._*?".contains(c)) =>
            {
                let patterns = vec![Pattern::parse(text, Place::Whole)];
                Ok(Self::Names(TextSet::new(patterns, false)?))
            }
            _ => Err(format!(
                "{} is no destination: write an address or network, with a port behind a colon if \
                 you like (192.0.2.0/24, 192.0.2.7:443, [2001:db8::1]:22), or a name without a port (*.example.com)",
                quoted(text)
            )),
        }
    }

    fn variable(
        name: &str,
        context: &Context<'_>,
        report: &mut Report<'_>,
    ) -> Result<Self, String> {
        let items = context
            .vars
            .get(name)
            .ok_or_else(|| format!("there is no variable {}: vars.yaml has none", quoted(name)))?;
        context.used.borrow_mut().insert(name.to_owned());
        let mut read = |items: &[Item]| -> Vec<Self> {
            let mut known = Vec::new();
            for item in items {
                match Self::parse(&item.text) {
                    Ok(destination) => known.push(destination),
                    Err(message) => report.problems.add(&item.source, &item.span, message, None),
                }
            }
            known
        };
        let of_agents = context.vars.of_agents(name);
        let of_agents = of_agents.map(|(agents, items)| (agents.to_vec(), read(items)));
        Ok(Self::Variable(of_agents.collect(), read(items)))
    }

    fn is_of(&self, deed: &Deed<'_>) -> bool {
        match self {
            Self::Variable(of_agents, of_all) => {
                let own = deed.agent.and_then(|agent| {
                    let mut entries = of_agents.iter();
                    entries.find(|(agents, _)| agents.iter().any(|it| it.chooses(agent)))
                });
                let list = own.map_or(of_all, |(_, own)| own);
                list.iter().any(|destination| destination.is_of(deed))
            }
            Self::Net(net, port) => deed.remote.is_some_and(|remote| {
                net.contains(&remote.ip) && port.is_none_or(|port| port == remote.port)
            }),
            Self::Names(set) => deed.name.is_some_and(|name| set.matches(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Container;
    use crate::rules::problem::{Problems, Source};
    use crate::rules::vars::Vars;
    use crate::rules::yaml;

    fn read(text: &str) -> (Vec<Exception>, Vec<String>) {
        let source = Source::new("x.yaml".as_ref(), text.to_owned());
        let mut problems = Problems::default();
        let nodes = yaml::documents(text).expect("YAML");
        let mut report = Report {
            source: &source,
            problems: &mut problems,
        };
        let vars = Vars::default();
        let context = Context {
            vars: &vars,
            used: Default::default(),
            regexes: Default::default(),
        };
        let exceptions = Exception::read_all(&nodes[0], &context, &mut report);
        (exceptions, problems.lines())
    }

    #[test]
    fn an_entry_holds_when_all_that_it_names_does() {
        let agent = Agent {
            name: "ci-1".into(),
            cgroup: "/agents/ci-1".into(),
            container: Some(Container {
                image: Some("registry.example/build:7".into()),
                labels: [("role".to_owned(), "build".to_owned())].into(),
                ..Container::default()
            }),
            ..Agent::default()
        };
        let process = Process {
            exe: Some("/usr/bin/git".into()),
            ..Process::default()
        };
        let deed = Deed {
            agent: Some(&agent),
            process: Some(&process),
            remote: Some(Address {
                ip: [192, 0, 2, 7].into(),
                port: 22,
            }),
            name: Some("git.example.com"),
        };
        for (entry, want) in [
            ("agent: 'cgroup:/agents/*'", true),
            ("agent: ['docker:x', 'cgroup:/agents/*']", true),
            ("agent: 'cgroup:/other/*'", false),
            ("image: 'registry.example/*'", true),
            ("image: 'registry.example'", false),
            ("label: role=build", true),
            ("label: role=web", false),
            ("binary: /usr/bin/git", true),
            ("binary: [/usr/bin/g?t, /x]", true),
            ("destination: 192.0.2.0/24", true),
            ("destination: 192.0.2.7:22", true),
            ("destination: 192.0.2.7:23", false),
            ("destination: '*.example.com'", true),
            ("destination: ['[2001:db8::1]:22', 198.51.100.1]", false),
            ("{binary: /usr/bin/git, destination: 198.51.100.1}", false),
            (
                "{binary: /usr/bin/git, destination: 192.0.2.7, reason: mirrors}",
                true,
            ),
        ] {
            let (exceptions, problems) = read(entry);
            assert_eq!(problems, Vec::<String>::new(), "{entry}");
            assert_eq!(exceptions[0].covers(&deed), want, "{entry}");
            assert!(!exceptions[0].covers(&Deed::default()), "{entry}");
        }
    }

    #[test]
    fn what_could_not_be_meant_is_an_error() {
        for (entry, problem) in [
            ("{}", "names nothing"),
            ("reason: none", "names nothing"),
            ("agnet: x", "no member `agnet`"),
            ("agent: ci-1", "names no kind"),
            ("destination: 192.0.2.7:99999", "no destination"),
            ("destination: a b", "no destination"),
            ("destination: '%there-is-none%'", "no variable"),
            ("label: =x", "no key"),
        ] {
            let (_, problems) = read(entry);
            assert!(problems[0].contains(problem), "{entry}: {problems:?}");
        }
    }
}
