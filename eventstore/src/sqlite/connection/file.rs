//! Which file the connections are on: the one that its name still names, or none.
//!
//! SQLite keeps its files open and never looks at their names again. After `mv`, `rm`, or a restore that puts another file
//! in place, a handle would go on writing into a file that no other process sees. A file that is open keeps its inode, so device
//! and inode show whether a name still means it. A second name (hard link) gives the file a second journal, which the
//! users of the first do not see.
//!
//! Names are only looked up, never opened: closing any descriptor of the file would drop all locks that this process has
//! on it. Where there are no inodes nothing is compared but that the files exist; Windows refuses to rename or remove a
//! file that SQLite has open.

use std::io;
use std::path::{Path, PathBuf};

use crate::database_error::DatabaseError;

/// What identifies a file while it is open in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

/// The file that `path` names, and how many names it has.
#[cfg(unix)]
fn look_up(path: &Path) -> io::Result<(FileId, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path)?;
    Ok((FileId { device: found.dev(), inode: found.ino() }, found.nlink()))
}

#[cfg(not(unix))]
fn look_up(path: &Path) -> io::Result<(FileId, u64)> {
    std::fs::metadata(path)?;
    Ok((FileId { device: 0, inode: 0 }, 1))
}

/// The file that `path` names, if there is one.
pub(crate) fn id_of(path: &Path) -> Option<FileId> {
    look_up(path).ok().map(|(id, _)| id)
}

/// How many names the file has that `path` names; 0 if there is none.
pub(crate) fn names_of(path: &Path) -> u64 {
    look_up(path).map_or(0, |(_, names)| names)
}

/// A database file as a handle has opened it, and its journal with the journal's index.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    path: PathBuf,
    id: FileId,
    /// Of a file that is open for writing. SQLite never removes them while it is.
    beside: Option<[(PathBuf, FileId); 2]>,
}

/// In what way a name no longer means the file that was opened.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) what: String,
    pub(crate) remedy: &'static str,
}

impl Replaced {
    pub(crate) fn two_names(path: &Path, names: u64) -> Self {
        Self {
            what: format!(
                "`{}` has {names} names (hard links), each of which would have a journal of its own",
                path.display()
            ),
            remedy: "remove the other names, or copy the file instead of linking it",
        }
    }
}

impl From<Replaced> for DatabaseError {
    fn from(Replaced { what, remedy }: Replaced) -> Self {
        Self::FileReplaced { what, remedy: remedy.to_owned() }
    }
}

impl OpenedFile {
    /// The file that `path` names, after a connection for writing (if it is `written`) has used its journal.
    pub(crate) fn of(path: &Path, written: bool) -> Result<Self, Replaced> {
        let (id, names) = look_up(path).map_err(|error| gone(path, &error))?;
        if names > 1 {
            return Err(Replaced::two_names(path, names));
        }
        let beside = if written {
            // SQLite resolves links and keeps the journal beside the file itself.
            let real = path.canonicalize().map_err(|error| gone(path, &error))?;
            let [journal, index] = ["-wal", "-shm"].map(|suffix| {
                let mut name = real.clone().into_os_string();
                name.push(suffix);
                let name = PathBuf::from(name);
                look_up(&name).map(|(id, _)| (name.clone(), id)).map_err(|_| journal_replaced(&name))
            });
            Some([journal?, index?])
        } else {
            None
        };
        Ok(Self { path: path.to_owned(), id, beside })
    }

    /// Whether the name still means the file: what readers ask.
    pub(crate) fn check_name(&self) -> Result<(), Replaced> {
        let (id, names) = look_up(&self.path).map_err(|error| gone(&self.path, &error))?;
        if id != self.id {
            return Err(Replaced {
                what: format!("`{}` names another file than the one that was opened", self.path.display()),
                remedy: "put that one back under its name, or close this handle and open the other",
            });
        }
        if names > 1 {
            return Err(Replaced::two_names(&self.path, names));
        }
        Ok(())
    }

    /// The same, and whether file and journal are still those that belong together.
    pub(crate) fn check(&self) -> Result<(), Replaced> {
        self.check_name()?;
        for (name, id) in self.beside.iter().flatten() {
            if id_of(name) != Some(*id) {
                return Err(journal_replaced(name));
            }
        }
        Ok(())
    }
}

fn gone(path: &Path, error: &io::Error) -> Replaced {
    Replaced {
        what: format!("the file that was opened is no longer at `{}`: {error}", path.display()),
        remedy: "put it back there, or close this handle and open the file that shall be used",
    }
}

fn journal_replaced(name: &Path) -> Replaced {
    Replaced {
        what: format!("`{}` was removed or replaced while the file was open", name.display()),
        remedy: "close all handles, then compare the file with a backup before it is used again",
    }
}
