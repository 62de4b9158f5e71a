//! containerd, with everything it writes in a folder of the suite's own; and the clean-up after a run, good or bad.
//!
//! The folder's name is fixed, so that the next run finds what a killed one has left: processes are the suite's when
//! their command line names the folder or they are in its pods' cgroups, and nothing else is ended.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{cgroup::hierarchy, cri::Client, image, pods};

const HOME: &str = "/run/oom-watcher-containers";
/// Runs its arguments without the v2 hierarchy that many machines mount beside v1: crun refuses to run where it has any
/// controller.
const HIDE_V2: &str = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$0\" \"$@\"";
/// containerd's own tests wait so long for it.
const START: Duration = Duration::from_secs(30);
/// How long killed processes, their mounts and cgroups may take to go.
const END: Duration = Duration::from_secs(20);

/// The runtimes that sandboxes may ask for, by the name of the handler.
pub(crate) const HANDLERS: [&str; 2] = ["runc", "crun"];
/// A runtime that is given systemd's triple `slice:prefix:id` and makes what systemd would: the slices, and a scope in them. The
/// pattern is that of a pod with a QoS level. What is BELOW the scope is crun's, which keeps a container's processes one level
/// below what systemd has made, and limited, for it.
const AS_SYSTEMD: &str = r#"#!/bin/sh
bundle=
for word in "$@"; do
    [ "$before" != --bundle ] || bundle=$word
    before=$word
done
if [ -n "$bundle" ]; then
    config=$bundle/config.json
    sed -i 's,"cgroupsPath":"\(kubepods-[a-z]*\)\(-pod[^:]*\.slice\):\([a-z-]*\):\([0-9a-f]*\)","cgroupsPath":"/kubepods.slice/\1.slice/\1\2/\3-\4.scopeBELOW",' "$config"
    scope=MOUNT$(sed -n 's,.*"cgroupsPath":"\([^"]*\.scope\).*,\1,p' "$config")
    limit=$(sed -n 's,.*"memory":{"limit":\([0-9]*\).*,\1,p' "$config")
    if [ -n "BELOW" ] && [ -n "$limit" ]; then
        echo +memory > "${scope%/*}/cgroup.subtree_control"
        mkdir "$scope"
        echo "$limit" > "$scope/memory.max"
    fi
fi
exec RUNTIME "$@"
"#;

/// A running containerd; stopped when dropped, with all that it started.
pub(crate) struct Containerd {
    child: Child,
    client: Option<Client>,
    _lock: File,
}

/// What the suite needs of the machine; the reason why it cannot run.
pub(crate) fn possible() -> Result<(), String> {
    for program in ["containerd", "ctr", "runc", "crun"] {
        program_path(program).ok_or_else(|| format!("{program} is not installed"))?;
    }
    image::busybox()?;
    pods::possible()
}

/// Where Debian has a program.
pub(crate) fn program_path(program: &str) -> Option<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
}

/// A path in the suite's folder.
pub(crate) fn home(name: &str) -> PathBuf {
    Path::new(HOME).join(name)
}

/// The socket that containerd listens on.
pub(crate) fn socket() -> PathBuf {
    home("containerd.sock")
}

impl Containerd {
    /// Cleans up after an earlier run, and starts containerd with the image in it.
    #[track_caller]
    pub(crate) fn start() -> Self {
        fs::create_dir_all(HOME).expect("/run can be written");
        let lock = lock();
        clean_up();
        fs::create_dir_all(home("image")).expect("the folder is ours");
        for handler in HANDLERS {
            write_as_systemd(handler);
        }
        fs::write(home("config.toml"), config()).expect("the folder is ours");
        let log = File::create(home("containerd.log")).expect("the folder is ours");
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", HIDE_V2])
            .arg(program_path("containerd").expect("it was looked for before"))
            .arg("--config")
            .arg(home("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        pods::place_containerd(child.id());
        let mut containerd = Self { child, client: None, _lock: lock };
        containerd.client = Some(containerd.wait_for_socket());
        import(&image::make(&home("image")));
        let deadline = Instant::now() + START;
        // The CRI plugin learns of the image by an event.
        while !containerd.client().has_image(image::NAME) {
            assert!(Instant::now() < deadline, "containerd does not show the image:\n{}", log_end());
            thread::sleep(Duration::from_millis(50));
        }
        containerd
    }

    /// Its CRI.
    pub(crate) fn client(&self) -> &Client {
        self.client.as_ref().expect("it is connected once it has started")
    }

    #[track_caller]
    fn wait_for_socket(&mut self) -> Client {
        let deadline = Instant::now() + START;
        loop {
            if let Ok(client) = Client::connect(&socket()) {
                return client;
            }
            let ended = self.child.try_wait().expect("it is our child");
            assert!(ended.is_none() && Instant::now() < deadline, "containerd does not start:\n{}", log_end());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.client = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
        clean_up();
    }
}

/// One run at a time: two would end each other's processes.
fn lock() -> File {
    let file = File::create(format!("{HOME}.lock")).expect("/run can be written");
    file.lock().expect("the lock can be waited for");
    file
}

/// The end of containerd's log.
pub(crate) fn log_end() -> String {
    let text = fs::read_to_string(home("containerd.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// A negative `oom_score_adj` of the sandbox needs the capability SYS_RESOURCE.
fn may_lower_oom_score() -> bool {
    caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE).unwrap_or(false)
}

/// The name under which a runtime makes systemd's cgroups.
pub(crate) fn systemd_handler(handler: &str) -> String {
    format!("{handler}-systemd")
}

/// Writes the program that stands for a runtime with systemd.
#[track_caller]
fn write_as_systemd(handler: &str) {
    let (runtime, hierarchy) = (program_path(handler).expect("it was looked for before"), hierarchy());
    let below = if handler == "crun" && hierarchy.v2 { "/container" } else { "" };
    let text = AS_SYSTEMD.replace("BELOW", below).replace("RUNTIME", &runtime.display().to_string());
    let text = text.replace("MOUNT", &hierarchy.mount.display().to_string());
    let file = home(&systemd_handler(handler));
    fs::write(&file, text).expect("the folder is ours");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("the file is ours");
}

/// The entry of a runtime in containerd's configuration.
fn runtime(handler: &str, binary: &Path) -> String {
    let table = format!("plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{handler}");
    format!(
        "[{table}]\nruntime_type = \"io.containerd.runc.v2\"\n[{table}.options]\nBinaryName = \"{}\"\n\
         Root = \"{HOME}/state-of-{handler}\"\nSystemdCgroup = false\n",
        binary.display()
    )
}

fn config() -> String {
    let runtimes = HANDLERS.map(|handler| {
        let as_systemd = systemd_handler(handler);
        runtime(handler, &program_path(handler).expect("it was looked for before"))
            + &runtime(&as_systemd, &home(&as_systemd))
    });
    let runtimes = runtimes.concat();
    // The native snapshotter copies: for one small file that is cheap, and it works on any file system of a guest.
    format!(
        "version = 2\nroot = \"{HOME}/root\"\nstate = \"{HOME}/state\"\n\
         [grpc]\naddress = \"{HOME}/containerd.sock\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{}\"\nrestrict_oom_score_adj = {}\n\
         stream_server_port = \"0\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = \"{HOME}/cni\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n\
         default_runtime_name = \"runc\"\n{runtimes}",
        image::NAME,
        !may_lower_oom_score()
    )
}

#[track_caller]
fn import(archive: &Path) {
    let output = Command::new(program_path("ctr").expect("it was looked for before"))
        .arg("--address")
        .arg(socket())
        .args(["--namespace", "k8s.io", "images", "import", "--snapshotter", "native"])
        .arg(archive)
        .output()
        .expect("ctr starts");
    assert!(output.status.success(), "ctr does not import: {}", String::from_utf8_lossy(&output.stderr));
}

/// Ends what a run has started and removes what it has made.
fn clean_up() {
    let deadline = Instant::now() + END;
    let sockets = shim_sockets();
    loop {
        let left: Vec<u32> = pids_of_home().into_iter().chain(pods::pids()).collect();
        pods::kill(&left);
        if left.is_empty() || Instant::now() > deadline {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    unmount();
    pods::remove_all(deadline);
    for socket in sockets {
        let _ = fs::remove_file(socket);
    }
    let _ = fs::remove_dir_all(HOME);
}

/// containerd and its shims: their command lines name the folder.
fn pids_of_home() -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc is there").filter_map(Result::ok);
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        let mut words = command.split('\0');
        let program = words.next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
        let ours = |word: &str| word == format!("{HOME}/config.toml") || word == format!("{HOME}/containerd.sock");
        program.starts_with("containerd") && words.any(ours)
    })
    .collect()
}

/// Sockets of shims: the only files that containerd keeps elsewhere.
fn shim_sockets() -> Vec<PathBuf> {
    let tasks = home("state/io.containerd.runtime.v2.task/k8s.io");
    let bundles = fs::read_dir(tasks).into_iter().flatten().filter_map(Result::ok);
    let addresses = bundles.filter_map(|bundle| fs::read_to_string(bundle.path().join("address")).ok());
    addresses.filter_map(|address| Some(PathBuf::from(address.trim().strip_prefix("unix://")?))).collect()
}

/// Unmounts whatever is mounted below the folder, the innermost first.
fn unmount() {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts are listed");
    let below = format!("{HOME}/");
    for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if mount.starts_with(&below) {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
    }
}
