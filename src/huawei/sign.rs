//! Signatures of HuaweiCloud, `SDK-HMAC-SHA256`: a request is signed with the secret key, which is not sent.

use aws_lc_rs::hmac;
use sha2::{Digest, Sha256};
use url::Url;

use crate::secret::Secret;

const ALGORITHM: &str = "SDK-HMAC-SHA256";

/// What is signed of a request.
pub(super) struct Signable<'a> {
    pub(super) method: &'a str,
    /// Without characters that would have to be encoded.
    pub(super) url: &'a Url,
    /// Those that count beside `host` and `x-sdk-date`, in lower case.
    pub(super) headers: &'a [(&'static str, &'a str)],
    /// As `20060102T150405Z`.
    pub(super) date: &'a str,
    pub(super) body: &'a [u8],
}

impl Signable<'_> {
    /// The header `Authorization` of whoever has the access key `access`, whose secret key is `secret`.
    pub(super) fn authorization(&self, access: &str, secret: &Secret<String>) -> String {
        let mut headers = vec![("host", self.url.authority()), ("x-sdk-date", self.date)];
        headers.extend(self.headers);
        headers.sort_unstable();
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let headers: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical = format!(
            "{}\n{}/\n{}\n{headers}\n{names}\n{}",
            self.method,
            self.url.path().trim_end_matches('/'),
            self.url.query().unwrap_or_default(),
            hex(&Sha256::digest(self.body)),
        );
        let signed = format!("{ALGORITHM}\n{}\n{}", self.date, hex(&Sha256::digest(canonical)));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let signature = hex(hmac::sign(&key, signed.as_bytes()).as_ref());
        format!("{ALGORITHM} Access={access}, SignedHeaders={names}, Signature={signature}")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the signer of huaweicloud-sdk-go-v3 v0.1.207 says for the same requests.
    #[test]
    fn signatures_are_those_of_the_sdk_that_sops_uses() {
        let kms = "https://kms.tr-west-1.myhuaweicloud.com/v1.0/0123456789abcdef/kms/decrypt-data";
        let body = r#"{"cipher_text":"AAAA","encryption_algorithm":"SYMMETRIC_DEFAULT","key_id":"0d0466b0-e727-4d9c-b35d-f84bb474a37f"}"#;
        // Go ends JSON with a line.
        let body = format!("{body}\n");
        let iam = "https://iam.tr-west-1.myhuaweicloud.com/v3/projects?name=tr-west-1";
        let (project, token) = (("x-project-id", "0123456789abcdef"), ("x-security-token", "TEMPORARY"));
        let of_p = [("x-project-id", "p"), token];
        let table: [(&str, &str, &[_], &str, &str, &str); 3] = [
            (
                "POST",
                kms,
                &[project],
                &body,
                "STRONGROOM-MARKER",
                "host;x-project-id;x-sdk-date, Signature=077045bccadf84ff74143f5a919de7e79f5e76e1f24377dc6c253bd6cb6b81a3",
            ),
            (
                "GET",
                iam,
                &[token],
                "",
                "STRONGROOM-MARKER",
                "host;x-sdk-date;x-security-token, Signature=69da9e143ea67e7d8b4e4667b2127ab8d575c4d5dc76c3347ed0f7012c71e14d",
            ),
            (
                "POST",
                "http://127.0.0.1:8080/v1.0/p/kms/encrypt-data",
                &of_p,
                "{}\n",
                "another key",
                "host;x-project-id;x-sdk-date;x-security-token, Signature=9e580d949f587fa2ab712d275f1c97e73d7d320f3f5d871e1c295faab2b8c726",
            ),
        ];
        for (method, url, headers, body, secret, expected) in table {
            let url = url.parse().unwrap();
            let date = "20260102T030405Z";
            let signable = Signable { method, url: &url, headers, date, body: body.as_bytes() };
            let authorization = signable.authorization("ACCESS", &Secret::new(secret.to_owned()));
            let expected = format!("SDK-HMAC-SHA256 Access=ACCESS, SignedHeaders={expected}");
            assert_eq!(authorization, expected);
        }
    }
}
