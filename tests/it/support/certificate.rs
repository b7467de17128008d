//! Certificates, made by `openssl`.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// The files of a self-signed certificate for `localhost` and 127.0.0.1, and of its key.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

// ===== impl Certificate =====

impl Certificate {
    /// One that all tests of this binary share.
    pub(crate) fn of_tests() -> Self {
        static MADE: OnceLock<Certificate> = OnceLock::new();
        let dir = std::env::temp_dir().join(format!("nudged-tls-{}", std::process::id()));
        MADE.get_or_init(|| Self::make(&dir, "nudged tests")).clone()
    }

    /// Makes one in this directory, with this common name.
    pub(crate) fn make(dir: &Path, name: &str) -> Self {
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
        Self::make_with(&[names, "basicConstraints=critical,CA:FALSE"], dir, name)
    }

    /// Makes one with these extensions.
    pub(crate) fn make_with(extensions: &[&str], dir: &Path, name: &str) -> Self {
        Self::make_by(&[], extensions, dir, name)
    }

    /// Makes one signed by this one, which must be an authority's.
    pub(crate) fn sign(&self, dir: &Path, name: &str) -> Self {
        let extensions = ["subjectAltName=IP:127.0.0.1", "basicConstraints=critical,CA:FALSE"];
        let signer = ["-CA", &self.certificate, "-CAkey", &self.key];
        Self::make_by(&signer, &extensions, dir, name)
    }

    /// Makes one that is valid between these times (`YYYYMMDDHHMMSSZ`).
    pub(crate) fn make_for([from, to]: [&str; 2], dir: &Path) -> Self {
        let made = Self::make(dir, "nudged tests");
        let file = |what: &str| dir.join(what).display().to_string();
        let settings = format!(
            "[ca]\ndefault_ca=a\n[a]\ndatabase={}\nserial={}\nnew_certs_dir={}\ndefault_md=sha256\npolicy=p\n\
             x509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n",
            file("index"),
            file("serial"),
            dir.display(),
        );
        std::fs::write(file("settings"), settings).expect("a file");
        std::fs::write(file("index"), "").expect("a file");
        let [request, settings] = ["request", "settings"].map(file);
        let run = |args: &[&str]| {
            let output = Command::new("openssl").args(args).output().expect("openssl is installed");
            assert!(output.status.success(), "{output:?}");
        };
        run(&["req", "-new", "-key", &made.key, "-subj", "/CN=nudged tests", "-out", &request]);
        run(&[
            "ca",
            "-config",
            &settings,
            "-batch",
            "-selfsign",
            "-create_serial",
            "-notext",
            "-in",
            &request,
            "-keyfile",
            &made.key,
            "-out",
            &made.certificate,
            "-startdate",
            from,
            "-enddate",
            to,
        ]);
        made
    }

    fn make_by(signer: &[&str], extensions: &[&str], dir: &Path, name: &str) -> Self {
        std::fs::create_dir_all(dir).expect("a directory");
        let file = |what: &str| dir.join(what).display().to_string();
        let (certificate, key) = (file("certificate.pem"), file("key.pem"));
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")])
            .args(extensions.iter().flat_map(|extension| ["-addext", extension]))
            .args(signer)
            .args(["-out", &certificate, "-keyout", &key])
            .output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "{output:?}");
        Self { certificate, key }
    }

    /// The settings of a client that trusts this certificate only, and offers these application protocols.
    pub(crate) fn trusting(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let trusted = CertificateDer::from_pem_file(&self.certificate).expect("PEM");
        roots.add(trusted).expect("a certificate");
        let mut config = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// The flags that make a server use it.
    pub(crate) fn flags(&self) -> [&str; 4] {
        ["--tls-cert", &self.certificate, "--tls-key", &self.key]
    }
}
