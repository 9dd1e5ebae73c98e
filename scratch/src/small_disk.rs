//! A small file system in memory, which a test fills and then enlarges.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::again::{is_again, run_again};

/// A file system in memory. A test must check [`SmallDisk::may_be_mounted`] first.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
    owner: String,
}

impl SmallDisk {
    /// Whether this process has a namespace in which it may mount. If not, the test `test` of the module `module_path!()` is
    /// run again in one. When that process ends, everything it has mounted is unmounted.
    ///
    /// # Panics
    /// If the test fails there, or if no such namespace can be created.
    #[must_use]
    pub fn may_be_mounted(module: &str, test: &str) -> bool {
        if is_again() {
            return true;
        }
        let own = run_again(&["unshare", "--mount"], module, test);
        let done = own.or_else(|as_we_are| {
            run_again(&["unshare", "--map-root-user", "--mount"], module, test)
                .map_err(|as_root| format!("{as_we_are}\n{as_root}"))
        });
        done.unwrap_or_else(|errors| {
            panic!(
                "the test failed, or it may not mount: run it as root, or where user namespaces are allowed\n{errors}"
            )
        });
        false
    }

    /// Mounts one of a size such as `2m`.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[must_use]
    pub fn new(size: &str) -> Self {
        Self::for_owner_of(Path::new("/proc/self"), size)
    }

    /// Mounts one for the account that owns `path`, such as a server's folder.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[must_use]
    pub fn for_owner_of(path: &Path, size: &str) -> Self {
        let path = std::fs::metadata(path).expect("the path exists");
        let owner = format!("uid={},gid={},mode=700", path.uid(), path.gid());
        let folder = std::env::temp_dir().join(format!("annals-disk-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&folder).expect("a folder");
        let disk = Self { folder, owner };
        disk.mount(&format!("size={size}"));
        disk
    }

    /// Makes it larger.
    ///
    /// # Panics
    /// If it cannot be mounted again.
    pub fn grow(&self, size: &str) {
        self.mount(&format!("remount,size={size}"));
    }

    /// The mount point.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    fn mount(&self, options: &str) {
        let mut mount = Command::new("mount");
        // With type and source given, a remount does not inherit the old options, some of which a user may not set.
        mount.args(["-t", "tmpfs", "-o", &format!("{options},{}", self.owner), "tmpfs"]).arg(&self.folder);
        let done = mount.output().expect("`mount` is installed with `unshare`");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        if unmounted.is_ok_and(|status| status.success()) {
            // It is empty now, and harmless if it remains.
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}
