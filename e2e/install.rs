//! The values and patches of `argocd-values/`, rendered by the real helm as the argo-cd chart would place them, and by the
//! real kustomize.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde::Deserialize as _;
use serde_json::{Map, Value as Json, json};

use support::helm::helm_bare;
use support::kubernetes::assert_valid;
use support::process::Run;
use support::product::strongroom;
use support::repository::{Repository, copy};
use support::tools::{tool, top};

/// What is given after `base.yaml`.
const OVERLAYS: [&str; 12] = [
    "age",
    "pgp",
    "aws-irsa",
    "aws-pod-identity",
    "gke",
    "azure",
    "vault",
    "kubernetes",
    "registry",
    "policy",
    "prometheus",
    "network-policy",
];

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

/// All objects that the real kustomize makes of these components and the manifests of an Argo CD without Strongroom.
fn kustomized(components: &[&str]) -> Vec<Json> {
    let repository = Repository::new();
    copy(&top().join("argocd-values/kustomize"), &repository.path().join("strongroom"));
    let components: Vec<_> = components.iter().map(|name| format!("strongroom/{name}")).collect();
    let kustomization = json!({"resources": ["argocd.yaml"], "components": components});
    repository.write("kustomization.yaml", kustomization.to_string());
    repository.write("argocd.yaml", helm_bare("helm", top().join("e2e/fixtures/argo-chart")).ok());
    documents(&Run::new(tool("kubectl")).arg("kustomize").arg(repository.path()).ok())
}

/// By kind and name, with the lists of named things sorted: what patches order otherwise means the same.
fn sorted(objects: Vec<Json>) -> BTreeMap<String, Json> {
    let named = |mut object: Json| {
        sort_lists(&mut object);
        (format!("{} {}", object["kind"], object["metadata"]["name"]), object)
    };
    objects.into_iter().map(named).collect()
}

fn sort_lists(value: &mut Json) {
    match value {
        Json::Array(items) => {
            items.iter_mut().for_each(sort_lists);
            items.sort_by_key(|item| item["name"].as_str().map(str::to_owned));
        }
        Json::Object(fields) => fields.values_mut().for_each(sort_lists),
        _ => {}
    }
}

/// One patch of `argocd-values/operator/`.
fn operator(name: &str) -> Json {
    let path = top().join(format!("argocd-values/operator/{name}.yaml"));
    let mut documents = documents(&fs::read_to_string(path).unwrap());
    assert_eq!(documents.len(), 1, "kubectl patch takes one document: {name}");
    documents.remove(0)
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
    assert_lists(&settings(objects), name);
}

/// What the overlay allows is there to be allowed: a list with a word of its own would let nothing pass.
fn assert_lists(settings: &Map<String, Json>, name: &str) {
    let text = |path: &str| fs::read_to_string(top().join(path)).unwrap();
    let (references, policy) = (text("docs/references.md"), text("docs/policy.md"));
    let entries = |setting: &str| settings.get(setting).and_then(Json::as_str).unwrap_or_default().split(',');
    for scheme in entries("STRONGROOM_ALLOW_REFS").filter_map(|entry| entry.split("://").next()) {
        let known = scheme.is_empty() || references.contains(&format!("\n## `{scheme}`\n"));
        assert!(known, "{name}: there are no references {scheme:?}");
    }
    for kind in entries("STRONGROOM_ALLOW_KEYS").filter_map(|entry| entry.split(':').next()) {
        assert!(
            kind.is_empty() || policy.contains(&format!("`{kind}`")),
            "{name}: there are no keys {kind:?}"
        );
    }
    let variables = settings.iter().map(|(name, value)| (name, value.as_str().unwrap()));
    let read = strongroom().envs(variables).args(["get", "ref+echo://read"]).ok();
    assert_eq!(read.trim_end(), "read", "{name}");
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
fn the_base_has_as_many_lines_and_parts_as_the_readme_says_and_at_most_thirty_lines() {
    let text = fs::read_to_string(values("base")).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#')).count();
    assert!(lines <= 30, "{lines}");
    let readme = fs::read_to_string(top().join("README.md")).unwrap();
    assert!(readme.contains(&format!("{lines} lines of Helm values")), "README.md has another count");
    let values = &documents(&text)[0]["repoServer"];
    assert_eq!(values.as_object().unwrap().len(), 2, "nothing else of the repo-server is changed: {values}");
    let parts = (items(&values["extraContainers"]).len(), items(&values["volumes"]).len());
    let container = &values["extraContainers"][0];
    assert_eq!((parts, &container["env"]), ((1, 2), &Json::Null));
    assert!(readme.contains("| one container, 2 volumes, no variable that must be set |"));
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
fn every_object_is_valid_for_kubernetes() {
    for overlay in OVERLAYS {
        for base in ["base", "stock-server"] {
            for object in rendered(&[base, overlay]) {
                assert_valid(&object, &format!("{base} and {overlay}"));
            }
        }
        if overlay != "network-policy" {
            assert_valid(&operator(overlay), &format!("operator/{overlay}"));
        }
    }
    for base in ["base", "stock-server"] {
        assert_valid(&operator(base), &format!("operator/{base}"));
    }
}

#[test]
fn the_schema_is_strict() {
    let holds = |spec: &Json| {
        let object =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec});
        std::panic::catch_unwind(|| assert_valid(&object, "a")).is_ok()
    };
    let with = |container: Json| json!({"selector": {}, "template": {"spec": {"containers": [container]}}});
    assert!(holds(&with(json!({"name": "a"}))));
    let unknown = json!({"name": "a", "imagePullPolice": "Always"});
    for container in [unknown, json!({"image": "a"}), json!({"name": 7})] {
        assert!(!holds(&with(container.clone())), "{container}");
    }
    assert!(!holds(&json!({"template": {}})), "it has no selector");
}

#[test]
fn the_components_make_what_the_values_make() {
    assert_eq!(sorted(kustomized(&[])), sorted(rendered(&[])));
    for overlay in OVERLAYS {
        assert_eq!(sorted(kustomized(&["base", overlay])), sorted(rendered(&["base", overlay])), "{overlay}");
    }
    let stock = kustomized(&["base", "stock-server"]);
    assert_eq!(sorted(stock), sorted(rendered(&["stock-server"])));
    let several = ["base", "age", "vault", "policy"];
    assert_eq!(sorted(kustomized(&several)), sorted(rendered(&several)), "the last one wins");
}

#[test]
fn the_operator_is_told_what_the_values_say() {
    for base in ["base", "stock-server"] {
        assert_told(base);
    }
    for overlay in OVERLAYS.into_iter().filter(|overlay| *overlay != "network-policy") {
        let patch = operator(overlay);
        let settings = Json::Object(settings_of(&[overlay]));
        assert_eq!(patch["spec"].get("cmdParams").unwrap_or(&json!({})), &settings, "{overlay}");
        let (objects, repo) = (rendered(&[overlay]), &patch["spec"]["repo"]);
        let mounts_token = pod(&objects)["automountServiceAccountToken"] == true;
        assert_eq!(repo["mountsatoken"] == true, mounts_token, "{overlay}");
        assert_eq!(repo["labels"].as_object().cloned().unwrap_or_default(), labels_of(&objects), "{overlay}");
        // What the operator has no field for is a matter of an account of one's own, as the page says.
        let account = find(&objects, "ServiceAccount").unwrap();
        let own =
            account["metadata"]["annotations"].is_object() || pod(&objects)["imagePullSecrets"].is_array();
        assert!(!own || repo["serviceaccount"] == account["metadata"]["name"], "{overlay}");
    }
}

/// The sidecar of the operator's patch is that of the values, and Argo CD's own parameters are.
fn assert_told(base: &str) {
    let (values, patch) = (rendered(&[base]), operator(base));
    let repo = &patch["spec"]["repo"];
    let mut expected = sidecar(&values).clone();
    let context = expected["securityContext"].as_object_mut().unwrap();
    // OpenShift chooses the user itself, and refuses a pod that does.
    context.retain(|field, _| !["runAsUser", "runAsGroup"].contains(&field.as_str()));
    assert_eq!(repo["sidecarContainers"], json!([expected]));
    let volumes = items(&repo["volumes"]);
    assert_eq!(names(&repo["volumes"], "name"), BTreeSet::from(["strongroom-keys", "strongroom-tmp"]));
    assert!(volumes.iter().all(|volume| items(&pod(&values)["volumes"]).contains(volume)));
    let variables = [("controller", 0), ("server", 1), ("repo", 2)].map(|(part, index)| {
        let variable = &patch["spec"][part]["env"][0];
        (index, variable["name"].as_str().unwrap().to_owned(), variable["value"].clone())
    });
    let of_values = settings(&values);
    for (index, name, value) in variables {
        let (variable, parameter) = PARAMETERS[index];
        assert_eq!((name.as_str(), &value), (variable, &of_values[parameter]));
    }
}

/// Argo CD's own parameters in `base.yaml`, and the variables that they are to the programs that read them.
const PARAMETERS: [(&str, &str); 3] = [
    ("ARGOCD_APPLICATION_CONTROLLER_REPO_SERVER_TIMEOUT_SECONDS", "controller.repo.server.timeout.seconds"),
    ("ARGOCD_SERVER_REPO_SERVER_TIMEOUT_SECONDS", "server.repo.server.timeout.seconds"),
    ("ARGOCD_REPO_SERVER_PLUGIN_TAR_EXCLUSIONS", "reposerver.plugin.tar.exclusions"),
];

/// The labels of the pod, without the chart's own.
fn labels_of(objects: &[Json]) -> Map<String, Json> {
    let labels = &find(objects, "Deployment").unwrap()["spec"]["template"]["metadata"]["labels"];
    let own = |name: &str| name.starts_with("app.kubernetes.io/");
    labels.as_object().unwrap().clone().into_iter().filter(|(name, _)| !own(name)).collect()
}

/// What these value files set, without what the chart sets itself.
fn settings_of(files: &[&str]) -> Map<String, Json> {
    let own = settings(&rendered(&[]));
    settings(&rendered(files)).into_iter().filter(|(name, _)| !own.contains_key(name)).collect()
}

#[test]
fn no_way_to_install_is_left_out_here() {
    let names_in = |folder: &str| {
        let entries = fs::read_dir(top().join("argocd-values").join(folder)).unwrap();
        let stem =
            |entry: std::io::Result<fs::DirEntry>| entry.unwrap().path().file_stem().unwrap().to_owned();
        entries.map(stem).map(|name| name.into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    let overlays = OVERLAYS.into_iter().map(str::to_owned);
    let all: BTreeSet<_> = overlays.chain(["base".to_owned(), "stock-server".to_owned()]).collect();
    assert_eq!(names_in("kustomize"), all);
    // The policy is one object, the same for all.
    let of_operator = all.into_iter().filter(|name| name != "network-policy");
    assert_eq!(names_in("operator"), of_operator.collect());
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
    meters.unkept("");
    meters.reloaded("", true);
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
