//! Arguments and environment, read once and turned into the options of the other modules.
//!
//! The operator's choices ([`Operator`]) come from flags and `STRONGROOM_*` variables of the process; nothing that a
//! repository or an Application can set reaches them.
#![allow(clippy::doc_markdown, reason = "the docs of arguments are what --help prints")]

pub mod application;
pub mod authoring;
pub mod operator;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::sops::file::FileFormat;

pub use authoring::{Edit, Encrypt, Rotate, Set, Unset, UpdateKeys};
pub use operator::Operator;

const EXAMPLES: &str = "\
Examples:
  # What Argo CD would get, secrets masked
  strongroom template shop ./charts/shop -f values.yaml -f secrets.yaml
  strongroom template --application app.yaml

  # Whether everything opens, and where each value comes from
  strongroom check --application app.yaml
  strongroom explain --application app.yaml

  # What a file or a reference opens to
  strongroom decrypt secrets.yaml
  strongroom encrypt -i secrets.yaml
  strongroom get 'ref+awssecrets://team/db#/password'
  strongroom resolve -f values.yaml

  # The same as variables of a shell, or of a program
  eval \"$(strongroom env --export -f env.yaml)\"
  strongroom exec -i -f env.yaml -- ./server --port 8080";

const CHECK_EXAMPLES: &str = "\
Examples:
  strongroom check shop ./charts/shop -f values.yaml -f secrets.yaml
  strongroom check --application app.yaml -o json

Exit codes: 0 all is well, 1 it would fail, 3 it would work, and opened values stand outside of Secrets.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  strongroom explain shop ./charts/shop -f values.yaml -f secrets.yaml --set replicas=3
  strongroom explain --application app.yaml -o json";

/// Renders Helm charts for Argo CD, with SOPS files opened and secret references resolved in memory.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// The operator's choices.
    #[command(flatten)]
    pub operator: Operator,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What Strongroom can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the manifests of the app in the current directory, as Argo CD asks for them.
    ///
    /// Reads ARGOCD_APP_NAME, ARGOCD_APP_NAMESPACE, KUBE_VERSION, KUBE_API_VERSIONS, ARGOCD_ENV_* and
    /// ARGOCD_APP_PARAMETERS. Manifests go to stdout; on failure stdout stays empty and stderr says why.
    Generate(Generate),
    /// Serve Argo CD's repo-server on a unix socket: the sidecar's way in, which takes no argocd-cmp-server.
    Serve(Serve),
    /// Ask the server on the socket whether it serves, for exec probes.
    Health(Socket),
    /// Render a chart, or an Argo CD Application, from a terminal. Secrets are masked.
    Template(Box<Template>),
    /// Say which keys and references a chart or an Application needs, whether all can be opened here, and where what was
    /// opened would stand outside of Secrets.
    ///
    /// Opens everything, renders, and prints no secret.
    Check(Box<Check>),
    /// Say where each final value of a chart or an Application comes from. Secrets are masked.
    ///
    /// The values are those that the chart's templates see. Each is followed by the file and line that said it, by whether it
    /// is encrypted there or which reference stands there, and by what it overrides.
    Explain(Box<Explain>),
    /// Print what a SOPS file opens to.
    Decrypt(Decrypt),
    /// Encrypt a file, so that Strongroom and sops open it.
    ///
    /// Values and comments are encrypted where they stand; order, style and everything else stays. The keys are those that are
    /// named here, else those of the first rule of .sops.yaml that matches the file's name.
    Encrypt(Box<Encrypt>),
    /// Change an encrypted file in an editor, or make a new one.
    ///
    /// The editor is that of SOPS_EDITOR or EDITOR, else vim, nano or vi. The plaintext is in memory, never on a disk, and gone in
    /// the end. What did not change keeps its ciphertext. Exit code 200: nothing was changed.
    Edit(Box<Edit>),
    /// Put one value into an encrypted file.
    ///
    /// Everything else stays: order, comments and style, and the ciphertext of what did not change.
    Set(Set),
    /// Take one value out of an encrypted file.
    Unset(Unset),
    /// Encrypt a file anew with a new data key, and add or remove master keys.
    Rotate(Box<Rotate>),
    /// Give encrypted files the master keys of the rule that matches their names.
    ///
    /// Says which keys come and go, and asks. The data key stays, so a key that goes has seen it: `rotate` makes a new one.
    #[command(name = "updatekeys")]
    UpdateKeys(UpdateKeys),
    /// Print YAML or JSON with its references resolved.
    Resolve(Resolve),
    /// Print what one reference resolves to.
    Get(Get),
    /// Print a map with its references resolved as variables of a shell: `name=value`, quoted.
    Env(Env),
    /// Run a program with a map, its references resolved, as its environment. The program takes this process over.
    Exec(Exec),
    /// Print the version, or what is linked into this program and under which licences.
    Version(Version),
    /// Print the completion script of a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, or that of one command: `strongroom man | man -l -`.
    Man {
        /// The command.
        command: Option<String>,
    },
    /// Print the reference pages of the documentation, made from the code's own tables.
    #[command(hide = true)]
    Docs {
        /// Which page.
        page: Page,
    },
}

impl Command {
    /// The log level where the operator names none. What a one-shot command logs would stand in its error message.
    pub const fn usual_log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info",
            _ => "error",
        }
    }
}

/// A page of the documentation that is made from a table.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Page {
    /// Settings of an application.
    Parameters,
    /// Schemes of references.
    References,
}

/// Arguments of `version`.
#[derive(Args, Debug)]
pub struct Version {
    /// Print the software bill of materials, as SPDX 2.3 JSON.
    #[arg(long)]
    pub sbom: bool,
    /// Print the texts of the licences.
    #[arg(long, visible_alias = "licenses", conflicts_with = "sbom")]
    pub licences: bool,
}

/// Arguments of `generate`.
#[derive(Args, Debug)]
pub struct Generate {
    /// The repository's root; found from ARGOCD_APP_SOURCE_PATH, else from the nearest .git.
    #[arg(long, value_name = "DIR")]
    pub repository: Option<PathBuf>,
    /// Render for Argo CD's source hydrator too, which commits opened secrets to git.
    #[arg(long, env = "STRONGROOM_ALLOW_HYDRATOR")]
    pub allow_hydrator: bool,
}

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub struct Serve {
    /// Which socket.
    #[command(flatten)]
    pub socket: Socket,
    /// Where applications are unpacked; best a memory-backed volume.
    #[arg(long, env = "ARGOCD_CMP_WORKDIR", value_name = "DIR", default_value = "/tmp")]
    pub workdir: PathBuf,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "STRONGROOM_HTTP", value_name = "ADDRESS", default_value = "127.0.0.1:8087")]
    pub http: SocketAddr,
    /// Count renders by the names of apps and projects too.
    #[arg(long, env = "STRONGROOM_METRICS_BY_APP")]
    pub metrics_by_app: bool,
    /// Let helm read and write all that the server may, as a helm that needs more than the system's programs must.
    #[arg(long, env = "STRONGROOM_UNCONFINED_HELM")]
    pub unconfined_helm: bool,
    /// How many applications are rendered at once; by default as many as there are cores and memory for.
    #[arg(long, env = "STRONGROOM_RENDERS", value_name = "NUMBER")]
    pub renders: Option<NonZeroUsize>,
    /// How long running renders may go on after SIGTERM.
    #[arg(long, env = "STRONGROOM_GRACE", value_name = "SECONDS", default_value = "25", value_parser = operator::seconds)]
    pub grace: Duration,
    /// Largest message either way, in MiB.
    #[arg(long, env = "ARGOCD_GRPC_MAX_SIZE_MB", value_name = "MIB", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub message_limit: u16,
    /// Most that is kept of what helm printed, in MiB, so that it need not run again for the same; 0 keeps nothing.
    #[arg(long, env = "STRONGROOM_RENDER_CACHE_MB", value_name = "MIB", default_value = "64")]
    pub render_cache: u16,
    /// Largest repository, unpacked, in MiB.
    #[arg(long, env = "STRONGROOM_REPOSITORY_LIMIT_MB", value_name = "MIB", default_value = "2048")]
    pub repository_limit: u32,
    /// Permission bits of the socket, octal; whoever may write may connect.
    #[arg(long, env = "STRONGROOM_SOCKET_MODE", value_name = "MODE", default_value = "660", value_parser = operator::mode)]
    pub socket_mode: u32,
    /// Render for Argo CD's source hydrator too, which commits opened secrets to git.
    #[arg(long, env = "STRONGROOM_ALLOW_HYDRATOR")]
    pub allow_hydrator: bool,
}

/// Which socket the sidecar serves on; the arguments of `health`.
#[derive(Args, Debug)]
pub struct Socket {
    /// Folder of the plugins' sockets, shared with the repo-server.
    #[arg(
        long,
        env = "ARGOCD_PLUGINSOCKFILEPATH",
        value_name = "DIR",
        default_value = "/home/argocd/cmp-server/plugins"
    )]
    pub plugins_dir: PathBuf,
    /// The plugin's configuration; without the file the plugin is called `strongroom` and discovers nothing.
    #[arg(
        long,
        env = "STRONGROOM_PLUGIN_CONFIG",
        value_name = "FILE",
        default_value = "/home/argocd/cmp-server/config/plugin.yaml"
    )]
    pub plugin_config: PathBuf,
}

/// Which chart or Application, in helm's own flags and a few.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Chart {
    /// Name of the release.
    #[arg(required_unless_present = "application")]
    pub name: Option<String>,
    /// Directory of the chart.
    #[arg(required_unless_present = "application")]
    pub chart: Option<PathBuf>,
    /// Render this Argo CD Application as the sidecar would (`-` is stdin).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "chart", "values", "set", "set_string", "set_json", "set_file", "set_literal", "namespace"])]
    pub application: Option<PathBuf>,
    /// Value file; may be encrypted, may be given several times.
    #[arg(short = 'f', long, value_name = "FILE", value_delimiter = ',')]
    pub values: Vec<String>,
    /// Value by path: `a.b=c`.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Value by path that stays a string.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set_string: Vec<String>,
    /// Value by path, as JSON.
    #[arg(long, value_name = "PATH=JSON")]
    pub set_json: Vec<String>,
    /// Content of a file as a value, by path.
    #[arg(long, value_name = "PATH=FILE")]
    pub set_file: Vec<String>,
    /// Value by path, taken letter by letter.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set_literal: Vec<String>,
    /// Namespace of the release.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Kubernetes version that the chart sees.
    #[arg(long, value_name = "VERSION")]
    pub kube_version: Option<String>,
    /// API versions that the chart sees.
    #[arg(short, long, value_name = "VERSION", value_delimiter = ',')]
    pub api_versions: Vec<String>,
    /// Take the chart's `crds` directory in (as Argo CD does; helm does not by default).
    #[arg(long)]
    pub include_crds: bool,
    /// Leave out test hooks.
    #[arg(long)]
    pub skip_tests: bool,
    /// Do not check values against the chart's schema.
    #[arg(long)]
    pub skip_schema_validation: bool,
    /// Resolve references that templates built, in the result.
    #[arg(long, conflicts_with = "application")]
    pub resolve_manifests: bool,
    /// The repository's root, which nothing of the chart may leave; the nearest directory with .git by default.
    #[arg(long, value_name = "DIR")]
    pub repository: Option<PathBuf>,
}

/// Arguments of `template`.
#[derive(Args, Debug)]
pub struct Template {
    /// What to render.
    #[command(flatten)]
    pub chart: Chart,
    /// Print secrets instead of `<masked>`.
    #[arg(long)]
    pub reveal: bool,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
#[command(after_help = CHECK_EXAMPLES)]
pub struct Check {
    /// What to check.
    #[command(flatten)]
    pub chart: Chart,
    /// How the findings are printed.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

/// Arguments of `explain`.
#[derive(Args, Debug)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub struct Explain {
    /// What to explain.
    #[command(flatten)]
    pub chart: Chart,
    /// How the values are printed.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// Lines for people.
    Text,
    /// One JSON document.
    Json,
}

const DECRYPT_EXAMPLES: &str = "\
Examples:
  strongroom decrypt secrets.yaml
  # One value, raw; a mapping as a document
  strongroom decrypt --extract '[\"database\"][\"users\"][0]' secrets.yaml";

/// Arguments of `decrypt`.
#[derive(Args, Debug)]
#[command(after_help = DECRYPT_EXAMPLES)]
pub struct Decrypt {
    /// The encrypted file (`-` is stdin).
    pub file: PathBuf,
    /// What sops took the file for, where neither its name nor its content tells.
    #[arg(long, value_name = "FORMAT", value_parser = FileFormat::NAMES)]
    pub input_type: Option<String>,
    /// Only what stands there, as `["key"][0]`: text as it is, a mapping as a document.
    #[arg(long, value_name = "PATH", conflicts_with = "in_place")]
    pub extract: Option<String>,
    /// Put the plaintext into the place of the file, for its owner only.
    #[arg(short, long, conflicts_with = "output")]
    pub in_place: bool,
    /// Write the plaintext to this file, for its owner only.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `resolve`.
#[derive(Args, Debug)]
pub struct Resolve {
    /// YAML or JSON with references; stdin by default.
    #[arg(short, long, default_value = "-")]
    pub file: PathBuf,
    /// What to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    pub output: ResolvedForm,
    /// Resolve references behind the base64 of Kubernetes Secrets too. Keys are left alone then.
    #[arg(long)]
    pub decode_kubernetes_secrets: bool,
}

/// Arguments of `env`.
#[derive(Args, Debug)]
pub struct Env {
    /// YAML or JSON map of variables; stdin by default.
    #[arg(short, long, default_value = "-")]
    pub file: PathBuf,
    /// Put `export` before each.
    #[arg(long)]
    pub export: bool,
}

/// Arguments of `exec`.
#[derive(Args, Debug)]
pub struct Exec {
    /// YAML or JSON map of variables.
    #[arg(short, long)]
    pub file: PathBuf,
    /// Give it the variables of this process too; those of the file win.
    #[arg(short, long)]
    pub inherit_env: bool,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What `resolve` prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ResolvedForm {
    /// The text as it is, with values in the place of references.
    Yaml,
    /// One line of JSON for each document.
    Json,
}

/// Arguments of `get`.
#[derive(Args, Debug)]
pub struct Get {
    /// The reference: `ref+scheme://path#/fragment`.
    pub reference: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_consistent_and_documented() {
        use clap::CommandFactory;
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        for command in cli.get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn helm_s_own_spellings_are_understood() {
        let line = "strongroom template shop ./chart -f a.yaml,b.yaml --values c.yaml --set a=1,b=2 --set-string c=3 \
                    -n prod -a v1,apps/v1 --kube-version 1.36.0 --include-crds";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Template(template) = cli.command else { panic!("not template") };
        assert_eq!(template.chart.values, ["a.yaml", "b.yaml", "c.yaml"]);
        assert_eq!(template.chart.set, ["a=1,b=2"]);
        assert_eq!(template.chart.api_versions, ["v1", "apps/v1"]);
        assert_eq!(template.chart.namespace.as_deref(), Some("prod"));
    }

    #[test]
    fn a_chart_and_an_application_exclude_each_other() {
        for line in ["strongroom template", "strongroom template shop chart --application app.yaml"] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
        assert!(Cli::try_parse_from(["strongroom", "template", "--application", "app.yaml"]).is_ok());
    }
}
