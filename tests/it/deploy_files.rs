//! The files of `deploy/`: their check passes, and finds what is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

/// What the check reads, to be spoilt.
fn a_copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["deploy", ".ci", "config", "Dockerfile", "rust-toolchain.toml"] {
        copy(&project().join(name), &folder.path().join(name));
    }
    folder
}

fn check(folder: &Path) -> Output {
    Command::new(folder.join(".ci/deploy")).current_dir(folder).output().unwrap()
}

const DEPLOYMENT: &str = "deploy/kubernetes/base/deployment.yaml";
const BASE: &str = "deploy/kubernetes/base/kustomization.yaml";
const POSTGRESQL: &str = "deploy/kubernetes/overlays/postgresql/kustomization.yaml";
const SQLITE: &str = "deploy/kubernetes/overlays/sqlite/kustomization.yaml";
const ECS: &str = "deploy/ecs/salla-reconciler.yaml";
const EXTERNAL_SECRET: &str = "deploy/kubernetes/components/external-secrets/externalsecret.yaml";
const POD_MONITOR: &str = "deploy/kubernetes/components/pod-monitor/podmonitor.yaml";
const ONE_MONITOR: &str = "deploy/kubernetes/components/pod-monitor/kustomization.yaml";
const SCHEMA: &str = "deploy/kubernetes/components/schema/kustomization.yaml";
const TARGET: &str = "deploy/kubernetes/components/target/kustomization.yaml";
const TOPOLOGY: &str = "deploy/kubernetes/components/topology-spread/kustomization.yaml";
const PLATFORM: &str = "deploy/kubernetes/overlays/platform/kustomization.yaml";
const NETWORK: &str = "deploy/kubernetes/base/networkpolicy.yaml";
const COMPOSE: &str = "deploy/compose/compose.yaml";

/// A file, what stands in it, what is put in its place, and a word of what is said about that.
const MISTAKES: [(&str, &str, &str, &str); 48] = [
    (DEPLOYMENT, "runAsUser: 65532", "runAsUser: 0", "root"),
    (DEPLOYMENT, "runAsNonRoot: true", "runAsNonRoot: false", "root"),
    (DEPLOYMENT, "type: RuntimeDefault", "type: Unconfined", "seccomp"),
    (DEPLOYMENT, "drop: [\"ALL\"]", "drop: [\"NET_RAW\"]", "capabilities"),
    (DEPLOYMENT, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "writable"),
    (DEPLOYMENT, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "privileges"),
    (DEPLOYMENT, "automountServiceAccountToken: false", "automountServiceAccountToken: true", "token"),
    (DEPLOYMENT, "terminationGracePeriodSeconds: 40", "terminationGracePeriodSeconds: 20", "grace"),
    (DEPLOYMENT, "path: /readyz", "path: /ready", "readinessProbe"),
    (DEPLOYMENT, "image: salla-reconciler:0.1.0", "image: salla-reconciler:latest", "tag"),
    (DEPLOYMENT, "containerPort: 8080", "containerPort: 8081", "port"),
    (DEPLOYMENT, "periodSeconds: 20", "periodSecond: 20", "periodSecond"),
    (DEPLOYMENT, "VAULT__KEYS", "VAULT__KEY", "VAULT__KEY "),
    (DEPLOYMENT, "limits: {memory: 256Mi}", "limits: {}", "memory"),
    (BASE, "SHUTDOWN__GRACE=25s", "SHUTDOWN__GRACE=60s", "grace"),
    (BASE, "HTTP__LISTEN=0.0.0.0:8080", "HTTP__LISTEN=127.0.0.1:8080", "listen"),
    (BASE, "SCHEDULE__TIMEZONE", "SCHEDULE__TIME_ZONE", "TIME_ZONE"),
    (POSTGRESQL, "count: 3", "count: 1", "replica"),
    (SQLITE, "value: {type: Recreate}", "value: {type: RollingUpdate}", "SQLite"),
    (
        NETWORK,
        "podSelector:\n    matchLabels:\n      app.kubernetes.io/name: salla-reconciler",
        "podSelector: {}",
        "NetworkPolicy",
    ),
    (NETWORK, "values: [monitoring, ingress-nginx]", "values: []", "NetworkPolicy"),
    (NETWORK, "matchExpressions:", "matchExpression:", "matchExpression"),
    (
        NETWORK,
        "    - from:\n        - namespaceSelector:\n            matchExpressions:\n              - {key: kubernetes.io/metadata.name, operator: In, values: [monitoring, ingress-nginx]}\n      ports",
        "    - ports",
        "open to all",
    ),
    (NETWORK, "kubernetes.io/metadata.name: kube-system", "name: kube-system", "names no namespace"),
    (DEPLOYMENT, "enableServiceLinks: false", "enableServiceLinks: true", "service links"),
    (EXTERNAL_SECRET, "target:\n    name: salla-reconciler", "target:\n    name: reconciler", "does not read"),
    (EXTERNAL_SECRET, "external-secrets.io/v1\n", "external-secrets.io/v1beta1\n", "v1beta1"),
    (EXTERNAL_SECRET, "refreshInterval", "refreshinterval", "refreshinterval"),
    (POD_MONITOR, "port: http", "port: metrics", "does not scrape"),
    (
        POD_MONITOR,
        "matchLabels:\n      app.kubernetes.io/name: salla-reconciler",
        "matchLabels:\n      app.kubernetes.io/name: reconciler",
        "does not choose the pods",
    ),
    (ONE_MONITOR, "$patch: delete", "# delete", "2 endpoints"),
    (SCHEMA, "DATABASE__SCHEMA=reconciler", "HTTP__LISTEN=0.0.0.0:8080", "changes nothing"),
    (TARGET, "TARGET__ORDERS__FUNCTION", "TARGET__PRODUCTS__FUNCTION", "without the other name"),
    (SQLITE, "configMapGenerator:", "components: [../../components/target]\nconfigMapGenerator:", "needs PostgreSQL"),
    (
        TOPOLOGY,
        "matchLabels:\n              app.kubernetes.io/name: salla-reconciler",
        "matchLabels:\n              app.kubernetes.io/name: reconciler",
        "does not count the pods",
    ),
    (
        TOPOLOGY,
        "topologyKey: topology.kubernetes.io/zone\n          whenUnsatisfiable: DoNotSchedule",
        "topologyKey: kubernetes.io/hostname\n          whenUnsatisfiable: ScheduleAnyway",
        "two constraints",
    ),
    (PLATFORM, "MIGRATE: \"false\"", "MIGRATE: false", "ConfigMap"),
    ("deploy/prometheus/alerts.yaml", "for: 10m", "for: 11m", "deploy rules"),
    (ECS, "StopTimeout: 40", "StopTimeout: 20", "StopTimeout"),
    (ECS, "ReadonlyRootFilesystem: true", "ReadonlyRootFilesystem: false", "writable"),
    (COMPOSE, "\"127.0.0.1:8080:8080\"", "\"8080:8080\"", "open"),
    (ECS, "TaskRoleArn: !GetAtt CollectorRole.Arn", "TaskRoleArn: !GetAtt TaskRole.Arn", "shares a role"),
    (
        ECS,
        "ExecutionRoleArn: !GetAtt CollectorExecutionRole.Arn",
        "ExecutionRoleArn: !GetAtt ExecutionRole.Arn",
        "shares a role",
    ),
    (ECS, "AllowedPattern: .+@sha256:[0-9a-f]{64}", "AllowedPattern: .+", "without a digest"),
    (
        COMPOSE,
        "prom/prometheus:v3.5.0@sha256:63805ebb8d2b3920190daf1cb14a60871b16fd38bed42b857a3182bc621f4996",
        "prom/prometheus:v3.5.0",
        "digest",
    ),
    ("Dockerfile", "@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1", "", "digest"),
    ("Dockerfile", "USER 65532:65532", "USER root", "root"),
    (
        "Dockerfile",
        "--recipe-path /recipe.json --profile dist",
        "--recipe-path /recipe.json --release",
        "other options",
    ),
];

/// The first check installs what checks need, and no other may be under way meanwhile.
static AS_THEY_ARE: LazyLock<Output> = LazyLock::new(|| check(project()));

#[test]
fn the_files_are_right() {
    assert!(AS_THEY_ARE.status.success(), "{}", String::from_utf8_lossy(&AS_THEY_ARE.stderr));
}

#[test]
fn mistakes_in_deploy_files_are_found() {
    LazyLock::force(&AS_THEY_ARE);
    for (file, right, wrong, word) in MISTAKES {
        let folder = a_copy();
        let path: PathBuf = folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(right), "{file} has no {right:?}");
        fs::write(&path, text.replacen(right, wrong, 1)).unwrap();
        let done = check(folder.path());
        let told = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
        assert!(!done.status.success(), "{file}: {right:?} → {wrong:?} is not found");
        assert!(told.contains(word), "{file}: {right:?} → {wrong:?} is not reported as {word:?}: {told}");
    }
}
