//! An AWS on loopback: moto, which speaks KMS, Secrets Manager and IAM.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{
    Site,
    child_process::Companion,
    cluster::{free_port, tools},
    proxy::Proxy,
};

pub const REGION: &str = "me-south-1";

/// Credentials that moto takes as long as it asks for none.
const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";
const SECRET_KEY: &str = "aws-secret-canary-0123456789";
const SESSION_TOKEN: &str = "aws-session-canary-0123456789";

/// One that runs.
pub struct Aws {
    port: u16,

    // Ends with this process, or with this.
    _server: Companion,
}

static SHARED: OnceLock<Aws> = OnceLock::new();

/// The one that all tests share: keys and secrets are named so that they do not meet.
pub async fn aws() -> &'static Aws {
    tokio::task::spawn_blocking(|| SHARED.get_or_init(Aws::start)).await.unwrap()
}

impl Aws {
    /// One of a test's own.
    pub fn start() -> Self {
        let port = free_port();
        let program = tools().join("moto/bin/moto_server");
        let arguments = ["-H", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned);
        let server = Companion::start_as_oneself(program.to_str().unwrap(), &arguments);
        for _ in 0..600 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Self { port, _server: server };
            }
            #[allow(clippy::disallowed_methods, reason = "no runtime is needed while a server starts")]
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("moto does not start within 60 s");
    }

    /// What lies between a site and this AWS.
    pub async fn proxy(&self) -> Proxy {
        Proxy::start(([127, 0, 0, 1], self.port).into()).await
    }

    /// Asks `service` for `action`, with a JSON body.
    pub async fn ask(&self, service: &str, action: &str, body: &Value) -> Result<Value, Value> {
        let prefix = if service == "kms" { "TrentService" } else { "secretsmanager" };
        let answer = self
            .post(service)
            .header("x-amz-target", format!("{prefix}.{action}"))
            .header("content-type", "application/x-amz-json-1.1")
            .body(body.to_string());
        let answer = answer.send().await.unwrap();
        let status = answer.status();
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
        if status.is_success() { Ok(body) } else { Err(body) }
    }

    /// Asks IAM, in its own way: a form, and XML that comes back.
    pub async fn ask_iam(&self, form: &[(&str, &str)]) -> String {
        let answer = self.post("iam").form(&[form, &[("Version", "2010-05-08")]].concat()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{text}");
        text
    }

    fn post(&self, service: &str) -> reqwest::RequestBuilder {
        let who = format!("Credential={ACCESS_KEY}/20260101/{REGION}/{service}/aws4_request");
        let authorization = format!("AWS4-HMAC-SHA256 {who}, SignedHeaders=host, Signature=none");
        client().post(format!("http://127.0.0.1:{}/", self.port)).header("authorization", authorization)
    }

    /// Whether everybody must be known and permitted what is asked for.
    pub async fn enforce_policies(&self, enforced: bool) {
        let unasked = if enforced { "0" } else { "inf" };
        let answer = client().post(format!("http://127.0.0.1:{}/moto-api/reset-auth", self.port)).body(unasked);
        assert!(answer.send().await.unwrap().status().is_success());
    }

    /// A new symmetric key; its ARN.
    pub async fn new_key(&self) -> String {
        let made = self.ask("kms", "CreateKey", &json!({})).await.unwrap();
        made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
    }

    /// A version of a secret, as JSON, and the labels that it has.
    pub async fn version(&self, secret: &str, version: &str) -> Option<(Value, Vec<String>)> {
        let asked = json!({"SecretId": secret, "VersionId": version});
        let answer = self.ask("secretsmanager", "GetSecretValue", &asked).await.ok()?;
        let text = answer["SecretString"].as_str().unwrap();
        Some((serde_json::from_str(text).unwrap(), labels(&answer["VersionStages"])))
    }

    /// Which version of a secret is the current one.
    pub async fn current(&self, secret: &str) -> Option<String> {
        let described = self.describe(secret).await?;
        let versions = described["VersionIdsToStages"].as_object()?;
        let current = |stages: &&Value| labels(stages).iter().any(|label| label == "AWSCURRENT");
        versions.iter().find(|(_, stages)| current(stages)).map(|(id, _)| id.clone())
    }

    /// Whether a secret is there and not marked as deleted.
    pub async fn is_kept(&self, secret: &str) -> bool {
        self.describe(secret).await.is_some_and(|described| described["DeletedDate"].is_null())
    }

    async fn describe(&self, secret: &str) -> Option<Value> {
        self.ask("secretsmanager", "DescribeSecret", &json!({"SecretId": secret})).await.ok()
    }

    /// Lets a site use it, by way of `port`.
    pub fn lend(&self, site: &mut Site, port: Option<u16>) {
        site.watch.sow("the secret key of AWS", SECRET_KEY.as_bytes());
        site.watch.sow("the session token of AWS", SESSION_TOKEN.as_bytes());
        for (name, value) in [
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_SESSION_TOKEN", SESSION_TOKEN),
            // At trace level, which all tests are at, the SDK would show what it is answered.
            ("LOG_SENSITIVE_BODIES", "true"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", port.unwrap_or(self.port))),
        ] {
            site.set_variable(name, value);
        }
    }
}

/// Of one runtime, which is a test's: its connections end with it.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn labels(stages: &Value) -> Vec<String> {
    stages.as_array().into_iter().flatten().map(|label| label.as_str().unwrap().to_owned()).collect()
}
