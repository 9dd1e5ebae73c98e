//! The certificates of the server. Every cluster has its own root.

use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// The only name in the server's certificate. The server listens on 127.0.0.1, which is another name.
const HOST: &str = "localhost";

/// How a database is reached over TCP.
#[derive(Debug)]
pub struct Tls {
    /// The name in the server's certificate.
    pub host: &'static str,
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// The root that signed the server's certificate, as a PEM file.
    pub root: PathBuf,
    /// Another root.
    pub foreign_root: PathBuf,
}

impl Tls {
    /// The files that `begin` writes for the cluster in `folder`.
    pub(crate) fn of(folder: &Path, port: u16) -> Self {
        Self { host: HOST, port, root: folder.join("root.pem"), foreign_root: folder.join("foreign-root.pem") }
    }

    /// Creates roots and certificate. The certificate is where the server expects it with `ssl = on`.
    pub(crate) fn begin(folder: &Path, data: &Path) {
        let roots = Self::of(folder, 0);
        let root = new_root("scratch");
        std::fs::write(roots.root, root.pem()).expect("the folder is ours");
        std::fs::write(roots.foreign_root, new_root("foreign").pem()).expect("the folder is ours");
        let key = KeyPair::generate().expect("there is randomness");
        let mut leaf = CertificateParams::new(vec![HOST.to_owned()]).expect("it is a valid name");
        leaf.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        let leaf = leaf.signed_by(&key, &root).expect("a root can sign");
        write_for_server(data, "server.crt", &leaf.pem());
        write_for_server(data, "server.key", &key.serialize_pem());
    }
}

fn new_root(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::CommonName, format!("annals {name} root"));
    let key = KeyPair::generate().expect("there is randomness");
    CertifiedIssuer::self_signed(root, key).expect("a root can sign itself")
}

/// The server refuses a key that others can read, and may run under another account.
fn write_for_server(data: &Path, name: &str, text: &str) {
    let path = data.join(name);
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
    std::io::Write::write_all(&mut file.expect("the data folder can be written"), text.as_bytes())
        .expect("the data folder can be written");
    let owner = std::fs::metadata(data).expect("the data folder exists");
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).expect("a file can be given to the server");
}
