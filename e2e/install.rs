//! The values and patches of `argocd-values/`, rendered by the real helm as the argo-cd chart would place them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize as _;
use serde_json::{Map, Value as Json, json};

use support::helm::helm_bare;
use support::product::strongroom;
use support::tools::top;

/// What is given after `base.yaml`.
const OVERLAYS: [&str; 8] =
    ["age", "pgp", "aws-irsa", "aws-pod-identity", "vault", "policy", "prometheus", "network-policy"];

fn values(name: &str) -> PathBuf {
    top().join(format!("argocd-values/{name}.yaml"))
}

fn documents(text: &str) -> Vec<Json> {
    serde_yaml::Deserializer::from_str(text).map(|document| Json::deserialize(document).unwrap()).collect()
}

/// All objects that helm makes of these value files, in their order.
fn rendered(files: &[&str]) -> Vec<Json> {
    let chart = top().join("e2e/fixtures/argo-chart");
    let flags = files.iter().flat_map(|name| ["-f".into(), values(name).into_os_string()]);
    documents(&helm_bare("helm", chart).args(flags).ok())
}

/// What one directory of `argocd-values/kustomize/` holds: patches, in files or in place, and resources.
fn kustomized(name: &str) -> Vec<Json> {
    let folder = top().join("argocd-values/kustomize").join(name);
    let read = |file: &Json| documents(&fs::read_to_string(folder.join(file.as_str().unwrap())).unwrap());
    let kustomization = read(&json!("kustomization.yaml")).remove(0);
    assert_eq!(kustomization["kind"], "Component", "{name}");
    let patches = items(&kustomization["patches"]).iter().flat_map(|patch| match &patch["patch"] {
        Json::String(text) => documents(text),
        _ => read(&patch["path"]),
    });
    patches.chain(items(&kustomization["resources"]).iter().flat_map(read)).collect()
}

fn items(list: &Json) -> &[Json] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn find<'a>(objects: &'a [Json], kind: &str) -> Option<&'a Json> {
    objects.iter().find(|object| object["kind"] == kind)
}

fn pod(objects: &[Json]) -> &Json {
    &find(objects, "Deployment").unwrap()["spec"]["template"]["spec"]
}

fn sidecar(objects: &[Json]) -> &Json {
    items(&pod(objects)["containers"]).iter().find(|container| container["name"] == "strongroom").unwrap()
}

fn settings(objects: &[Json]) -> Map<String, Json> {
    find(objects, "ConfigMap").and_then(|map| map["data"].as_object()).cloned().unwrap_or_default()
}

fn names<'a>(list: &'a Json, of: &str) -> BTreeSet<&'a str> {
    items(list).iter().map(|item| item[of].as_str().unwrap()).collect()
}

/// The folder that `container` mounts `volume` at.
fn mount<'a>(container: &'a Json, volume: &str) -> &'a str {
    let mount = items(&container["volumeMounts"]).iter().find(|mount| mount["name"] == volume);
    mount.unwrap_or_else(|| panic!("{volume} is not mounted"))["mountPath"].as_str().unwrap()
}

fn help() -> String {
    strongroom().args(["serve", "--help"]).ok().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The default of one variable, as `--help` tells it.
fn default_of<'a>(help: &'a str, variable: &str) -> &'a str {
    let (_, rest) = help.split_once(&format!("[env: {variable}=]")).unwrap();
    rest.trim_start().strip_prefix("[default: ").and_then(|rest| rest.split_once(']')).unwrap().0
}

/// What has to hold of every way to install.
fn assert_sound(objects: &[Json], help: &str, name: &str) {
    let (pod, sidecar) = (pod(objects), sidecar(objects));
    for container in items(&pod["containers"]) {
        let mounts = names(&container["volumeMounts"], "name");
        let missing = mounts.difference(&names(&pod["volumes"], "name")).copied().collect::<Vec<_>>();
        assert!(missing.is_empty(), "{name}: no volume {missing:?}");
    }
    let volume = |name: &str| items(&pod["volumes"]).iter().find(|volume| volume["name"] == name).unwrap();
    assert_eq!(volume("strongroom-tmp")["emptyDir"], json!({"medium": "Memory", "sizeLimit": "1Gi"}));
    assert_eq!(volume("strongroom-keys")["secret"]["secretName"], "strongroom-keys");
    let server = &items(&pod["containers"])[0];
    assert_eq!(mount(sidecar, "plugins"), mount(server, "plugins"));
    assert_eq!(mount(sidecar, "plugins"), default_of(help, "ARGOCD_PLUGINSOCKFILEPATH"));
    assert_eq!(mount(sidecar, "strongroom-tmp"), default_of(help, "ARGOCD_CMP_WORKDIR"));
    assert_eq!(mount(sidecar, "strongroom-keys"), default_of(help, "STRONGROOM_KEYS_DIR"));
    let locked = json!({
        "runAsNonRoot": true, "runAsUser": 999, "runAsGroup": 999, "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    assert_eq!(sidecar["securityContext"], locked, "{name}");
    for probe in ["readinessProbe", "livenessProbe"] {
        assert_eq!(
            sidecar[probe]["exec"]["command"],
            json!(["/usr/local/bin/strongroom", "health"]),
            "{name}"
        );
    }
    for amount in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
        assert!(sidecar["resources"].pointer(amount).is_some_and(Json::is_string), "{name}: {amount}");
    }
    assert_eq!(sidecar["envFrom"], json!([{"configMapRef": {"name": "argocd-cmd-params-cm"}}]), "{name}");
    let keys = fs::read_to_string(top().join("docs/keys.md")).unwrap();
    // The others are Argo CD's own parameters.
    for setting in settings(objects).keys().filter(|setting| !setting.contains('.')) {
        let known =
            help.contains(&format!("[env: {setting}=]")) || keys.contains(&format!("| `{setting}` |"));
        assert!(known, "{name}: {setting} is no variable of serve");
    }
}

#[test]
fn every_overlay_on_the_base_is_sound() {
    let help = help();
    for overlay in OVERLAYS {
        assert_sound(&rendered(&["base", overlay]), &help, overlay);
        assert_sound(&rendered(&["stock-server", overlay]), &help, overlay);
    }
    let base = rendered(&["base"]);
    assert_sound(&base, &help, "base");
    assert_eq!(sidecar(&base)["args"], json!(["serve"]));
    assert_eq!(sidecar(&base)["command"], Json::Null, "the image's entrypoint is the program");
}

#[test]
fn no_file_for_the_chart_is_left_out_here() {
    let mut known: BTreeSet<PathBuf> = OVERLAYS.iter().map(|name| values(name)).collect();
    known.extend([values("base"), values("stock-server")]);
    let entries = fs::read_dir(top().join("argocd-values")).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file()).collect::<BTreeSet<_>>();
    assert_eq!(files, known);
}

#[test]
fn the_base_has_at_most_thirty_lines() {
    let text = fs::read_to_string(values("base")).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#')).count();
    assert!(lines <= 30, "{lines}");
    let readme = fs::read_to_string(top().join("README.md")).unwrap();
    assert!(readme.contains(&format!("{lines} lines of Helm values")), "README.md has another count");
}

#[test]
fn the_stock_server_finds_its_program_its_configuration_and_ours() {
    let objects = rendered(&["stock-server"]);
    let sidecar = sidecar(&objects);
    assert_eq!(sidecar["command"], json!(["/var/run/argocd/argocd-cmp-server"]));
    assert_eq!(sidecar["args"], Json::Null);
    assert_eq!(mount(sidecar, "var-files"), "/var/run/argocd");
    let plugin = &documents(&fs::read_to_string(top().join("plugin.yaml")).unwrap())[0];
    // The sockets of both ways are then one: Applications and `strongroom health` need not know which it is.
    assert_eq!(plugin["metadata"]["name"], "strongroom");
    assert_eq!(plugin["spec"]["version"], Json::Null);
    let image = fs::read_to_string(top().join("image/build")).unwrap();
    let configuration = default_of(&help(), "STRONGROOM_PLUGIN_CONFIG").to_owned();
    assert!(image.contains(&format!("plugin.yaml \"$context/root{configuration}\"")));
    assert!(image.contains(plugin["spec"]["generate"]["command"][0].as_str().unwrap()));
}

#[test]
fn the_patches_say_what_the_values_say() {
    let (values, patches) = (rendered(&["base"]), kustomized("base"));
    assert_eq!(sidecar(&patches), sidecar(&values));
    let patched = names(&pod(&patches)["volumes"], "name");
    assert_eq!(patched, BTreeSet::from(["strongroom-keys", "strongroom-tmp"]));
    for volume in items(&pod(&patches)["volumes"]) {
        assert!(items(&pod(&values)["volumes"]).contains(volume), "{volume}");
    }
    assert_eq!(settings(&patches), settings(&values));
    for overlay in OVERLAYS {
        let (values, patches) = (rendered(&[overlay]), kustomized(overlay));
        assert_eq!(settings(&patches), settings(&values), "{overlay}");
        for kind in ["Service", "ServiceMonitor", "PrometheusRule", "NetworkPolicy"] {
            assert_eq!(find(&patches, kind), find(&values, kind), "{overlay}");
        }
        if let Some(account) = find(&patches, "ServiceAccount") {
            let same = &find(&values, "ServiceAccount").unwrap()["metadata"];
            assert_eq!(&account["metadata"], same, "{overlay}");
        }
    }
    let stock = rendered(&["stock-server"]);
    let patch = kustomized("stock-server");
    assert_eq!(sidecar(&patch)["command"], sidecar(&stock)["command"]);
    let mounts = items(&sidecar(&stock)["volumeMounts"]);
    assert!(items(&sidecar(&patch)["volumeMounts"]).iter().all(|mount| mounts.contains(mount)));
}

/// Every name of a series that the product has, as its pages, its dashboard and its alerts may spell it.
fn series() -> BTreeSet<String> {
    use strongroom::observe::{Meters, Stage};
    let mut registry = prometheus_client::registry::Registry::default();
    let meters = Meters::register(&mut registry, true);
    meters.answered("", Some(Ok(())));
    meters.rendered("", None, Stage::Open, None);
    meters.took(Stage::Open, std::time::Duration::ZERO);
    meters.received(1);
    meters.looked_up("", true);
    meters.holds("", 1);
    meters.fetched("", Ok(()));
    meters.fetch_took("", std::time::Duration::ZERO);
    meters.decrypted("", Ok(()));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let names = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(['{', ' ']).next());
    names.flatten().map(str::to_owned).collect()
}

fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("strongroom_")).map(str::to_owned).collect()
}

fn histogram(name: &str) -> &str {
    ["_bucket", "_count", "_sum"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

#[test]
fn every_metric_is_documented_and_none_is_named_that_is_not_there() {
    let series = series();
    let documented = named(&fs::read_to_string(top().join("docs/operating.md")).unwrap());
    assert_eq!(documented, series.iter().map(|name| histogram(name).to_owned()).collect());
    let dashboard = fs::read_to_string(top().join("argocd-values/dashboards/strongroom.json")).unwrap();
    let shown = named(&dashboard);
    assert!(shown.len() > 8 && shown.is_subset(&series), "{:?}", shown.difference(&series));
    let dashboard: Json = serde_json::from_str(&dashboard).unwrap();
    assert!(items(&dashboard["panels"]).iter().all(|panel| !items(&panel["targets"]).is_empty()));
    let objects = rendered(&["prometheus"]);
    let page = fs::read_to_string(top().join("docs/operating.md")).unwrap();
    let rules = items(&find(&objects, "PrometheusRule").unwrap()["spec"]["groups"][0]["rules"]);
    assert!(!rules.is_empty());
    for rule in rules {
        let expression = named(rule["expr"].as_str().unwrap());
        assert!(!expression.is_empty() && expression.is_subset(&series), "{rule}");
        assert!(page.contains(&format!("| `{}` |", rule["alert"].as_str().unwrap())), "{rule}");
    }
}
