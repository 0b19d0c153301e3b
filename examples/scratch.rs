#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::print_stdout)]
use std::sync::Arc;
use std::time::Instant;
use strongroom::aws::{Aws, AwsError, Connection};
use strongroom::policy::*;
use strongroom::sops::keys::{kms::Kms, *};
struct Any;
impl Authorise for Any {
    fn authorise(&self, _: &Who, _: What<'_>) -> Result<(), Denied> {
        Ok(())
    }
}
#[tokio::main]
async fn main() {
    let j: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string("/tmp/keys-kms.json").unwrap()).unwrap();
    let arn = j["arn"].as_str().unwrap().to_string();
    let enc = j["enc"].as_str().unwrap().to_string();
    let ctx = vec![("env".to_string(), "x".to_string()), ("app".to_string(), "demo".to_string())];
    let t0 = Instant::now();
    let aws = Arc::new(Aws::new());
    let ring = Keyring::new(Arc::new(Any), vec![Arc::new(Kms::new(aws.clone()))]);
    let mk =
        |arn: &str, role: Option<&str>, context: Vec<(String, String)>, profile: Option<&str>, enc: &str| {
            vec![vec![SealedKey::Kms {
                arn: arn.into(),
                role: role.map(Into::into),
                context,
                profile: profile.map(Into::into),
                enc: enc.into(),
            }]]
        };
    for (n, g) in [
        ("good", mk(&arn, None, ctx.clone(), None, &enc)),
        ("again other role", mk(&arn, Some("arn:aws:iam::123456789012:role/demo"), ctx.clone(), None, &enc)),
        ("no context", mk(&arn, None, vec![], None, &enc)),
        ("bad blob", mk(&arn, None, ctx.clone(), None, "AAAA")),
        (
            "other key",
            mk(
                "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000",
                None,
                ctx.clone(),
                None,
                &enc,
            ),
        ),
        ("bad arn", mk("arn:aws:kms:eu-west-1:x", None, ctx.clone(), None, &enc)),
        ("profile", mk(&arn, None, ctx.clone(), Some("nope"), &enc)),
    ] {
        let t = Instant::now();
        let r = ring.data_key(&Default::default(), &g, None).await;
        match r {
            Ok(k) => println!("{n}: ok {} {:?}", String::from_utf8_lossy(k.expose()), t.elapsed()),
            Err(e) => println!(
                "{n}: {:?}\n{}\n{:?}",
                strongroom::fault::Fault::class(&e),
                strongroom::fault::report(&e),
                t.elapsed()
            ),
        }
    }
    println!("total {:?}", t0.elapsed());
    let _ = (Connection::default(), AwsError::of_code("x"));
}
