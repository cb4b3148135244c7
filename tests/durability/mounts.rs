//! File systems of a test's own: an ext4 image whose power can be cut, and a small one in memory. Both need root.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::broker::Folder;

/// Asks the file system to drop what it has not written, the log of its own changes included.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
    folder = os.open(sys.argv[1], os.O_RDONLY)\n\
    fcntl.ioctl(folder, 0x8004587d, struct.pack('I', 2))\n";

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
