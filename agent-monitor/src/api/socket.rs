//! The Unix socket: who may listen on it, and who may talk to it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon is there.
    #[error(
        "another agent-monitor{} already listens on {}; stop it or use --socket",
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// Who listens, if the kernel tells.
        pid: Option<i32>,
    },
    /// Something that is not a socket lies there.
    #[error("{} exists and is not a socket; remove it or use --socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot {action} the socket {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A client that may talk to the daemon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Its user.
    pub(super) uid: u32,
}

/// A socket that is listened on. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode, to remove no file but ours.
    identity: (u64, u64),
    group: Option<u32>,
}

impl Socket {
    /// Listens on `path`, with mode 0660, owned by this user and, if given, the
    /// group. What a daemon that died left there is replaced. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// When a daemon already listens there, or the file cannot be made.
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, BindError> {
        let failed = |action| {
            move |source| BindError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        remove_stale(path)?;
        // Between bind and chmod the umask alone decides who may connect; whoever
        // does is still asked for their credentials.
        let listener = UnixListener::bind(path).map_err(failed("listen on"))?;
        let metadata = std::fs::symlink_metadata(path).map_err(failed("look at"))?;
        let socket = Self {
            listener,
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
            group,
        };
        if group.is_some() {
            std::os::unix::fs::lchown(path, None, group).map_err(failed("change the group of"))?;
        }
        let mode = std::fs::Permissions::from_mode(0o660);
        std::fs::set_permissions(path, mode).map_err(failed("change the mode of"))?;
        Ok(socket)
    }

    /// Whether this client may talk to the daemon: root, the daemon's own user,
    /// and members of the configured group may.
    ///
    /// # Errors
    /// A sentence for the client.
    pub(super) fn admit(&self, client: &UnixStream) -> Result<Peer, String> {
        let peer = client
            .peer_cred()
            .map_err(|error| format!("the kernel does not tell who you are: {error}"))?;
        let own = rustix::process::geteuid().as_raw();
        if peer.uid() == 0 || peer.uid() == own {
            return Ok(Peer { uid: peer.uid() });
        }
        match self.group {
            Some(group) if peer.gid() == group => Ok(Peer { uid: peer.uid() }),
            Some(group) if is_supplementary(client.as_fd(), group) => Ok(Peer { uid: peer.uid() }),
            Some(group) => Err(format!(
                "uid {} may not talk to agent-monitor: be root or a member of group {group}",
                peer.uid()
            )),
            None => Err(format!(
                "uid {} may not talk to agent-monitor: be root",
                peer.uid()
            )),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// A socket file outlives its daemon; whether one still listens shows only by connecting.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |action| {
        move |source| BindError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match connect_at_once(path) {
        Ok(pid) => Err(BindError::InUse {
            path: path.to_owned(),
            pid,
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of a daemon that is gone");
            std::fs::remove_file(path).map_err(failed("replace"))
        }
        // Somebody listens, but has not accepted for so long that the queue is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::InUse {
            path: path.to_owned(),
            pid: None,
        }),
        Err(error) => Err(failed("find out who listens on")(error)),
    }
}

/// Connects without waiting; answers who listens, if that process is in our pid namespace.
fn connect_at_once(path: &Path) -> io::Result<Option<i32>> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from_std(socket.into())?;
    Ok(stream.peer_cred()?.pid().filter(|pid| *pid > 0))
}

/// Whether the peer had this supplementary group when it connected
/// (`SO_PEERGROUPS`, socket(7) of Linux 4.13). Failure is "no".
fn is_supplementary(client: BorrowedFd<'_>, group: u32) -> bool {
    /// `NGROUPS_MAX` of linux/limits.h.
    const MOST: usize = 65_536;
    let mut groups: Vec<libc::gid_t> = vec![0; MOST];
    // 4 × 65,536 fits in a socklen_t.
    let mut bytes = (MOST * size_of::<libc::gid_t>()) as libc::socklen_t;
    // SAFETY: the descriptor is open for the call; `groups` has room for `bytes` bytes, and the
    // kernel writes at most that many and stores in `bytes` how many it wrote.
    let answer = unsafe {
        libc::getsockopt(
            client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    groups.truncate(bytes as usize / size_of::<libc::gid_t>());
    answer == 0 && groups.contains(&group)
}
