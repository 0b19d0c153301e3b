//! Objects against the schema of Kubernetes, and custom resources against the fields of them that are used here.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Secret, Service, ServiceAccount, Volume};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Fails where `object` has a field that its kind does not, lacks one that it must have, or holds a value of the wrong
/// type. `name` says which object it is.
pub fn assert_valid(object: &Json, name: &str) {
    let kind = [&object["apiVersion"], &object["kind"]].map(|part| part.as_str().unwrap_or_default());
    let read = match kind {
        ["v1", "ConfigMap"] => again::<ConfigMap>(object),
        ["v1", "Secret"] => again::<Secret>(object),
        ["v1", "Service"] => again::<Service>(object),
        ["v1", "ServiceAccount"] => again::<ServiceAccount>(object),
        ["apps/v1", "Deployment"] => again::<Deployment>(object),
        ["rbac.authorization.k8s.io/v1", "Role"] => again::<Role>(object),
        ["rbac.authorization.k8s.io/v1", "RoleBinding"] => again::<RoleBinding>(object),
        ["networking.k8s.io/v1", "NetworkPolicy"] => again::<NetworkPolicy>(object),
        ["monitoring.coreos.com/v1", "ServiceMonitor"] => again::<Custom<ServiceMonitor>>(object),
        ["monitoring.coreos.com/v1", "PrometheusRule"] => again::<Custom<PrometheusRule>>(object),
        ["argoproj.io/v1beta1", "ArgoCD"] => again::<Custom<ArgoCd>>(object),
        _ => panic!("{name}: {kind:?} has no schema here"),
    };
    let read = read.unwrap_or_else(|error| panic!("{name}: {kind:?}: {error}"));
    assert_eq!(read, *object, "{name}: {kind:?} holds what its schema does not, or lacks what it must have");
}

/// What is left of `object` once the type has read it. The types of Kubernetes drop what they do not know, and write what
/// must be there.
fn again<T: DeserializeOwned + Serialize>(object: &Json) -> Result<Json, serde_json::Error> {
    serde_json::from_value::<T>(object.clone()).and_then(serde_json::to_value)
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Custom<S> {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: S,
}

/// Of the Prometheus operator.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ServiceMonitor {
    selector: LabelSelector,
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Endpoint {
    port: String,
}

/// Of the Prometheus operator.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PrometheusRule {
    groups: Vec<Group>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pending: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// Of the Argo CD operator.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArgoCd {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    cmd_params: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    controller: Option<Component>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<Component>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repo: Option<Repo>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Component {
    env: Vec<EnvVar>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Repo {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    env: Vec<EnvVar>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sidecar_containers: Vec<Container>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Volume>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, rename = "serviceaccount", skip_serializing_if = "Option::is_none")]
    service_account: Option<String>,
    #[serde(default, rename = "mountsatoken", skip_serializing_if = "Option::is_none")]
    mount_service_account_token: Option<bool>,
}
