//! What the documents tell people to type or to write, tried.

use std::fs;
use std::path::{Path, PathBuf};

use agent_monitor::config::Format;
use assert_cmd::cargo::cargo_bin_cmd;
use serde_json::{Value, json};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(path).expect(name)
}

/// Every file of docs, and the README.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = fs::read_dir(root.join("docs")).expect("docs");
    let docs = docs.map(|entry| entry.expect("a file").path());
    docs.filter(|path| path.extension().is_some_and(|it| it == "md"))
        .chain([root.join("README.md")])
        .collect()
}

/// The blocks of `text` in a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    let parts = text.split(&start).skip(1);
    parts
        .map(|part| part.split("\n```").next().unwrap_or_default().to_owned() + "\n")
        .collect()
}

#[test]
fn every_configuration_in_the_documents_can_be_used() {
    let mut checked = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        for block in blocks(&text, "toml") {
            checked += 1;
            let dir = tempfile::tempdir().expect("a folder");
            // The files that it names, elsewhere: secrets and certificates.
            let own = dir.path().join("files");
            fs::create_dir_all(own.join("rules")).expect("a folder");
            let moved = block.replace("/etc/agent-monitor", &own.display().to_string());
            for quoted in moved.split('"').skip(1).step_by(2) {
                let file = Path::new(quoted);
                if file.starts_with(&own) && !file.exists() {
                    fs::write(file, "secret\n").expect("a file");
                }
            }
            let config = dir.path().join("config.toml");
            fs::write(&config, &moved).expect("a file");
            let mut check = cargo_bin_cmd!("agent-monitor");
            check.args(["config", "check"]).arg(&config);
            // And the variables that hold secrets.
            for rest in moved.split("env = \"").skip(1) {
                let name = rest.split('"').next().unwrap_or_default();
                check.env(name, "secret");
            }
            let output = check.output().expect("agent-monitor");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{}: {said}\n{block}",
                path.display()
            );
        }
    }
    assert!(checked >= 8, "{checked}");
}

#[test]
fn the_rule_of_the_tutorial_passes_its_tests() {
    let rules = blocks(&document("docs/write-a-rule.md"), "yaml");
    assert_eq!(rules.len(), 1);
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("kubectl.yaml"), &rules[0]).expect("a file");
    for verb in ["check", "test"] {
        let output = cargo_bin_cmd!("agent-monitor")
            .args(["rules", verb])
            .arg(dir.path())
            .output()
            .expect("agent-monitor");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    let listed = cargo_bin_cmd!("agent-monitor")
        .args(["rules", "list", "--output", "json"])
        .arg(dir.path())
        .output()
        .expect("agent-monitor");
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("agent-kubectl"), "{listed}");
}

/// An alert with every field of the table.
fn alert() -> Value {
    json!({
        "schema": 1, "id": "id-1", "time": "2026-01-02T03:04:05.678901234Z", "kind": "alert",
        "node": "node-1",
        "agent": {"id": "agent-1", "name": "coder", "cgroup": "/docker/x", "cgroup_id": "7",
            "container": {"id": "4f", "name": "coder", "image": "agents:1", "runtime": "docker"},
            "pod": {"namespace": "team", "name": "coder-0"}},
        "process": {"pid": 12, "start": 34, "ppid": 1, "uid": 1000, "comm": "ssh",
            "exe": "/usr/bin/ssh", "argv": ["ssh", "-N"],
            "ancestors": [{"pid": 1, "comm": "init", "exe": "/sbin/init"}]},
        "alert": {"incident": "incident-1", "revision": 2, "rule": "reverse-ssh-tunnel",
            "title": "Reverse SSH tunnel", "severity": "critical", "confidence": "high",
            "attack": ["T1572", "T1021.004"], "summary": "It tunnels.",
            "evidence": ["one", "two"], "events": ["a"], "count": 3,
            "first_seen": "2026-01-02T03:04:04Z", "last_seen": "2026-01-02T03:04:05Z",
            "coverage": "complete"}
    })
}

/// What is at a path such as `evidences.0.data`.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, name| {
        value
            .get(name)
            .or_else(|| value.get(name.parse::<usize>().ok()?))
    })
}

/// A member of a CEF line by its key, or a part of its header by its name.
fn in_cef<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let parts: Vec<&str> = line.splitn(8, '|').collect();
    match key {
        "signature" => return parts.get(4).copied(),
        "name" => return parts.get(5).copied(),
        "severity" => return parts.get(6).copied(),
        _ => {}
    }
    let extension = parts.get(7)?;
    let key = format!("{key}=");
    let start = if extension.starts_with(&key) {
        0
    } else {
        extension.find(&format!(" {key}"))? + 1
    };
    let rest = &extension[start + key.len()..];
    // The value ends where the next key begins.
    let end = rest
        .match_indices('=')
        .next()
        .map_or(rest.len(), |(at, _)| rest[..at].rfind(' ').unwrap_or(at));
    Some(&rest[..end])
}

#[test]
fn every_field_is_where_the_table_says() {
    let native = alert();
    let text = native.to_string();
    let json =
        |format: Format| -> Value { serde_json::from_str(&format.line(&text)).expect("JSON") };
    let (ocsf, ecs, cef) = (
        json(Format::Ocsf),
        json(Format::Ecs),
        Format::Cef.line(&text),
    );
    let document = document("docs/siem.md");
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    let mut seen = 0;
    for row in rows {
        seen += 1;
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`');
        let value = at(&native, name).unwrap_or_else(|| panic!("{name} is no field of ours"));
        for (cell, tree) in cells[1..3].iter().zip([&ocsf, &ecs]) {
            let (path, note) = cell.split_once(' ').unwrap_or((cell, ""));
            let found = at(tree, path.trim_matches('`'));
            let found = found.unwrap_or_else(|| panic!("{name}: no {path} in {tree}"));
            // A note says that it is written otherwise.
            assert!(
                !note.is_empty() || found == value,
                "{name}: {path} is {found}"
            );
        }
        let cell = cells[3];
        if cell.is_empty() {
            continue;
        }
        let (key, note) = cell.split_once(' ').unwrap_or((cell, ""));
        let found = in_cef(&cef, key.trim_matches('`'));
        let found = found.unwrap_or_else(|| panic!("{name}: no {key} in {cef}"));
        let plain = value.as_str().map_or(value.to_string(), str::to_owned);
        assert!(
            !note.is_empty() || found == plain,
            "{name}: {key} is {found}"
        );
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        let folder = path.parent().expect("a folder");
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap_or_default();
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                let file = folder.join(file);
                assert!(file.exists(), "{}: {target}", path.display());
            }
        }
    }
}
