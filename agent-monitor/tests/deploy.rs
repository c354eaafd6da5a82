//! What is in `deploy`: whether those who read it would accept it, and whether its
//! parts agree with each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::cargo::cargo_bin_cmd;
use serde_json::{Value, json};

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy(name)).expect(name)
}

/// Every object of the manifest, in its order.
fn objects() -> Vec<Value> {
    let text = read("kubernetes/agent-monitor.yaml");
    let objects = text.split("\n---\n").map(serde_saphyr::from_str);
    objects.collect::<Result<_, _>>().expect("YAML")
}

fn object(kind: &str) -> Value {
    let mut objects = objects().into_iter();
    objects.find(|it| it["kind"] == kind).expect(kind)
}

/// The values of a setting of the unit, of all its lines.
fn unit(setting: &str) -> Vec<String> {
    let text = read("agent-monitor.service");
    let values = text
        .lines()
        .filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    values
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

/// The schema of a kind, as Kubernetes publishes it.
fn schema(kind: &str) -> jsonschema::Validator {
    let data = "tests/data/kubernetes-1.37/definitions.json";
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join(data);
    let text = fs::read_to_string(data).expect("the schemas");
    let mut schema: Value = serde_json::from_str(&text).expect("JSON");
    let group = match kind {
        "DaemonSet" => "apps",
        "ClusterRole" | "ClusterRoleBinding" => "rbac",
        _ => "core",
    };
    schema["$ref"] = format!("#/$defs/io.k8s.api.{group}.v1.{kind}").into();
    jsonschema::validator_for(&schema).expect("a schema")
}

fn problems(object: &Value) -> Vec<String> {
    let kind = object["kind"].as_str().expect("a kind");
    let schema = schema(kind);
    schema
        .iter_errors(object)
        .map(|it| format!("{kind}{}: {it}", it.instance_path()))
        .collect()
}

#[test]
fn every_object_of_the_manifest_is_one_by_kubernetes_own_schema() {
    let objects = objects();
    assert_eq!(objects.len(), 6);
    for object in &objects {
        assert_eq!(problems(object), Vec::<String>::new());
    }
    // The schema refuses what is not there, and what is of another type.
    let mut wrong = object("DaemonSet");
    let pod = &mut wrong["spec"]["template"]["spec"];
    pod["hostPid"] = json!(true);
    pod["containers"][0]["livenessProbe"]["httpGet"]["port"] = json!([9469]);
    assert!(problems(&wrong).len() >= 2, "{:?}", problems(&wrong));
}

#[test]
fn the_pod_has_the_capabilities_that_the_unit_has_and_no_others() {
    let daemonset = object("DaemonSet");
    let security = &daemonset["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    let added = security["capabilities"]["add"].as_array().expect("a list");
    let added: BTreeSet<String> = added
        .iter()
        .map(|it| format!("CAP_{}", it.as_str().expect("a name")))
        .collect();
    let bounding = unit("CapabilityBoundingSet").into_iter().collect();
    assert_eq!(added, bounding);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(security["privileged"], json!(false));
    assert_eq!(security["allowPrivilegeEscalation"], json!(false));
}

#[test]
fn the_pod_may_list_pods_and_ask_the_api_server_nothing_else() {
    let (role, binding) = (object("ClusterRole"), object("ClusterRoleBinding"));
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]});
    assert_eq!(role["rules"], json!([rule]));
    assert!(role.get("aggregationRule").is_none());
    assert_eq!(role["metadata"]["name"], binding["roleRef"]["name"]);
    assert_eq!(binding["roleRef"]["kind"], "ClusterRole");
    let account = &object("ServiceAccount")["metadata"];
    let subject = json!({
        "kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]
    });
    assert_eq!(binding["subjects"], json!([subject]));
    let kinds = |suffix: &str| {
        let objects = objects().into_iter();
        objects
            .filter(|it| it["kind"].as_str().expect("a kind").ends_with(suffix))
            .count()
    };
    assert_eq!((kinds("Role"), kinds("RoleBinding")), (1, 1));

    // Only this pod has the token, and it says whose pods it asks for.
    let account = object("ServiceAccount");
    assert_eq!(account["automountServiceAccountToken"], json!(false));
    let daemonset = object("DaemonSet");
    let pod = &daemonset["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], json!(true));
    let node = json!({"fieldRef": {"fieldPath": "spec.nodeName"}});
    assert_eq!(
        pod["containers"][0]["env"],
        json!([{"name": "NODE_NAME", "valueFrom": node}])
    );
}

#[test]
fn what_the_pod_names_exists_and_its_configuration_can_be_used() {
    let daemonset = object("DaemonSet");
    let pod = &daemonset["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let names = |list: &Value| -> BTreeSet<String> {
        let list = list.as_array().expect("a list").iter();
        list.map(|it| it["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
    assert_eq!(
        pod["serviceAccountName"],
        object("ServiceAccount")["metadata"]["name"]
    );
    assert_eq!(
        daemonset["spec"]["selector"]["matchLabels"],
        daemonset["spec"]["template"]["metadata"]["labels"]
    );
    for object in objects() {
        let namespace = match object["kind"].as_str() {
            Some("Namespace" | "ClusterRole" | "ClusterRoleBinding") => &object["metadata"]["name"],
            _ => &object["metadata"]["namespace"],
        };
        assert_eq!(namespace, "agent-monitor");
    }

    let config = object("ConfigMap");
    let text = config["data"]["config.toml"].as_str().expect("a file");
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("config.toml"), text).expect("the file");
    let check = cargo_bin_cmd!("agent-monitor")
        .args(["config", "check"])
        .arg(dir.path())
        .assert();
    check.success();
    let settings: toml::Table = text.parse().expect("TOML");
    let listen = settings["metrics"]["listen"].as_str().expect("an address");
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        let asked = format!("{}:{}", get["host"].as_str().expect("a host"), get["port"]);
        assert_eq!(asked, listen, "{probe}");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    // It wants the programs that it starts to be there.
    let dir = tempfile::tempdir().expect("a folder");
    let text = read("agent-monitor.service").replace("/usr/bin/agent-monitor", "/bin/true");
    let file = dir.path().join("agent-monitor.service");
    fs::write(&file, text).expect("the unit");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&file)
        .output()
        .expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let ours: Vec<&str> = said
        .lines()
        .filter(|it| it.contains("agent-monitor.service"))
        .collect();
    assert_eq!(ours, Vec::<&str>::new());
}

/// What systemd-analyze(1) makes of the protections, ten times: 0 is closed, 100 open.
/// What it counts against the unit is what the daemon needs: the node's devices of
/// the network, its processes, and five capabilities.
const EXPOSURE: u32 = 30;

#[test]
fn the_unit_is_as_closed_as_it_can_be() {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true"])
        .arg(format!("--threshold={EXPOSURE}"))
        .arg(deploy("agent-monitor.service"))
        .output()
        .expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}
