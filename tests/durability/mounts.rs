//! File systems of a test's own: an ext4 image whose power can be cut, a small one in memory, and one that answers nothing.
//! All need root.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::Folder;

/// Asks the file system to drop what it has not written, the log of its own changes included.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
    folder = os.open(sys.argv[1], os.O_RDONLY)\n\
    fcntl.ioctl(folder, 0x8004587d, struct.pack('I', 2))\n";

/// Mounts a file system of which nobody takes the questions, until its input ends.
const SILENT: &str = "import ctypes, os, sys\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    device = os.open('/dev/fuse', os.O_RDWR)\n\
    options = f'fd={device},rootmode=40000,user_id=0,group_id=0'.encode()\n\
    failed = libc.mount(b'silent', sys.argv[1].encode(), b'fuse', 0, options)\n\
    if failed: sys.exit(os.strerror(ctypes.get_errno()))\n\
    print('mounted', flush=True)\n\
    sys.stdin.read()\n";

/// Says, where nobody can overlook it, that a test could not run.
pub(crate) fn skipped(test: &str, why: &str) {
    let line = format!("skipped: {test}: {why}");
    // Not through the macros, whose output of tests that pass is kept back.
    let _ = writeln!(std::io::stderr(), "{line}");
    if let Some(path) = std::env::var_os("CEIBA_SKIPPED") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let shown = format!("{program} {}", arguments.join(" "));
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{shown}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{shown}: {}", said.trim())) }
}

/// A mounted file system, gone with its owner.
pub(crate) struct Mount {
    folder: Folder,
    /// The file with the ext4 image.
    image: Option<PathBuf>,
}

impl Mount {
    /// An ext4 image on a loop device.
    pub(crate) fn ext4(name: &str) -> Result<Mount, String> {
        let folder = Folder::new(name);
        let image = folder.path().join("image");
        std::fs::create_dir(folder.path().join("mount")).unwrap();
        std::fs::File::create(&image).unwrap().set_len(192 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", &image.to_string_lossy()])?;
        run("python3", &["-c", "import fcntl"])?;
        let mount = Mount { folder, image: Some(image) };
        mount.mount()?;
        Ok(mount)
    }

    /// A file system in memory of so many bytes.
    pub(crate) fn memory(name: &str, bytes: u64) -> Result<Mount, String> {
        let mount = Mount { folder: Folder::new(name), image: None };
        let path = mount.folder.path().join("mount");
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={bytes}");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &path.to_string_lossy()])?;
        Ok(mount)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    fn mount(&self) -> Result<(), String> {
        let Some(image) = self.image.as_deref().map(Path::to_string_lossy) else { return Ok(()) };
        run("mount", &["-o", "loop", &image, &self.path().to_string_lossy()])
    }

    /// Cuts the power: what is not on disk is lost. Nobody may be writing.
    pub(crate) fn cut(&self) {
        run("python3", &["-c", SHUTDOWN, &self.path().to_string_lossy()]).unwrap();
    }

    /// The power comes back. Nobody may have a file open.
    pub(crate) fn power_on(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        while let Err(error) = run("umount", &[&self.path().to_string_lossy()]) {
            assert!(Instant::now() < until, "{error}");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.mount().unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.path().to_string_lossy()]);
    }
}

/// A mounted file system that answers nothing; what waits for it fails once this is dropped.
pub(crate) struct Silent {
    process: Child,
    mount: Mount,
}

impl Silent {
    pub(crate) fn mount(name: &str) -> Result<Silent, String> {
        let mount = Mount { folder: Folder::new(name), image: None };
        std::fs::create_dir(mount.path()).unwrap();
        let mut process = Command::new("python3")
            .args(["-c", SILENT, &mount.path().to_string_lossy()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let mut said = [0; 8];
        let heard = process.stdout.as_mut().unwrap().read_exact(&mut said);
        let silent = Silent { process, mount };
        match heard {
            Ok(()) => Ok(silent),
            Err(_) => Err("no file system in user space".into()),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.mount.path()
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
