use super::*;

/// A directory of configuration.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(DROP_INS)).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, environment: &[(&str, &str)], flags: &[Flag]) -> Result<Loaded, String> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let loaded = Loaded::read(Some(self.0.path()), environment, flags);
        loaded.map_err(|error| error.to_string())
    }
}

fn agent(value: &str) -> Flag {
    Flag {
        setting: "agents.select",
        name: "--agent",
        value: vec![value].into(),
    }
}

#[test]
fn each_layer_counts_before_the_one_below_and_says_where_it_is_from() {
    let dir = Dir::new(&[
        (
            "config.toml",
            "[store]\npath = '/a'\n\n[agents]\nselect = ['docker:a']\n[api]\ngroup = 'a'",
        ),
        ("conf.d/20-b.toml", "[api]\ngroup = 'c'"),
        (
            "conf.d/10-a.toml",
            "[api]\ngroup = 'b'\n[store]\npath = '/b'",
        ),
        ("conf.d/30.conf", "not read"),
    ]);
    let environment = [
        ("AGENT_MONITOR_STORE_PATH", "/c"),
        ("AGENT_MONITOR_AGENTS_SELECT", "docker:b, docker:c"),
        ("AGENT_MONITOR_TOKEN", "let be"),
    ];
    let loaded = dir.read(&environment, &[]).unwrap();
    assert_eq!(loaded.config.agents.select, ["docker:b", "docker:c"]);
    assert_eq!(loaded.config.store.path, Path::new("/c"));
    assert_eq!(loaded.config.api.group.as_deref(), Some("c"));
    let files = ["config.toml", "conf.d/10-a.toml", "conf.d/20-b.toml"];
    assert_eq!(loaded.files, files.map(|name| dir.path(name)));
    let origin = |setting: &str| loaded.origin(setting).clone();
    assert_eq!(
        origin("api.group"),
        Origin::File(dir.path("conf.d/20-b.toml"), 2)
    );
    let variable = "AGENT_MONITOR_STORE_PATH".to_owned();
    assert_eq!(origin("store.path"), Origin::Environment(variable));
    assert_eq!(origin("api.socket"), Origin::Default);

    let loaded = dir.read(&environment, &[agent("docker:d")]).unwrap();
    assert_eq!(loaded.config.agents.select, ["docker:d"]);
    assert_eq!(loaded.origin("agents.select"), &Origin::Flag("--agent"));
}

#[test]
fn a_sink_takes_the_place_of_the_one_of_its_name() {
    let file = |name: &str, path: &str| {
        format!("[[sink]]\nname = '{name}'\nkind = 'file'\npath = '{path}'\n")
    };
    let dir = Dir::new(&[
        (
            "config.toml",
            &(file("a", "/a") + &file("b", "/b") + "filter.min_severity = 'high'\n"),
        ),
        ("conf.d/b.toml", &(file("b", "/other") + &file("c", "/c"))),
    ]);
    let loaded = dir.read(&[], &[]).unwrap();
    let names: Vec<_> = loaded.config.sinks.iter().map(|sink| sink.name()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let origin = |setting: &str| loaded.origin(setting).clone();
    assert_eq!(
        origin("sink.a.path"),
        Origin::File(dir.path("config.toml"), 4)
    );
    assert_eq!(
        origin("sink.b.path"),
        Origin::File(dir.path("conf.d/b.toml"), 4)
    );
    assert_eq!(origin("sink.b.filter.min_severity"), Origin::Default);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let dir = Dir::new(&[("conf.d/x.toml", "[store]\npaht = '/x'")]);
    let message = dir.read(&[], &[]).unwrap_err();
    for part in ["conf.d/x.toml", "line 2", "`paht`", "did you mean `path`?"] {
        assert!(message.contains(part), "no {part} in {message}");
    }
    let dir = Dir::new(&[]);
    let message = dir
        .read(&[("AGENT_MONITOR_METRICS_LISTEN", "here")], &[])
        .unwrap_err();
    assert!(
        message.contains("$AGENT_MONITOR_METRICS_LISTEN"),
        "{message}"
    );
    let missing = Loaded::read(Some(Path::new("/nonexistent/am.toml")), [], &[]);
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("/nonexistent/am.toml"), "{message}");
}

#[test]
fn a_file_alone_is_read_without_what_lies_beside_it() {
    let dir = Dir::new(&[
        ("one.toml", "[api]\ngroup = 'a'"),
        ("conf.d/b.toml", "[api]\ngroup = 'b'"),
    ]);
    let loaded = Loaded::read(Some(&dir.path("one.toml")), [], &[]).unwrap();
    assert_eq!(loaded.config.api.group.as_deref(), Some("a"));
}
