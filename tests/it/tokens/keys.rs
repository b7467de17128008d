//! The keys with which a token may be signed.

use serde_json::json;

use super::{SECRET, bearer, key_pair, mint_with, now, sign, status_of};
use crate::support::Server;
use crate::support::programs::{OPENSSL, requires};
use crate::support::temp_dir::TempDir;

#[test]
fn every_algorithm_verifies_its_own_keys_and_no_others() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let pairs = [
        key_pair(&folder, "rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
        key_pair(&folder, "ec", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        key_pair(&folder, "ed", &["-algorithm", "ED25519"]),
    ];
    let all = pairs.each_ref().map(|[_, public]| public.as_str()).join(",");
    let server = Server::start(&["--jwt-key", &all]);
    for [private, public] in &pairs {
        let token = mint_with(&["--org", "acme", "--key", private]);
        server.stream_with("/api/acme/events", &bearer(&token)).connected();
        // A public key is not accepted as an HMAC secret (algorithm confusion).
        let pem = std::fs::read(public).expect("a file");
        let claims = json!({"org": "acme", "scope": "subscribe", "exp": now() + 60});
        for secret in [&pem[..], pem.trim_ascii_end()] {
            assert_eq!(status_of(&server, &sign(secret, &claims)), 401, "{public}");
        }
        for [_, other] in pairs.iter().filter(|[_, other]| other != public) {
            let server = Server::start(&["--jwt-key", other]);
            assert_eq!(status_of(&server, &token), 401, "{private} by {other}");
        }
        let with_secret = Server::start(&["--jwt-secret", SECRET]);
        assert_eq!(status_of(&with_secret, &token), 401, "{private} by a secret");
    }
}
