//! Processes that take memory in the ways that the scenarios need: the suite's own binary, started again.
//!
//! A hog waits for a byte before it takes anything, so that it is in its cgroup by then, and says when it has all it asked
//! for. All sizes are bounded.

use std::{
    ffi::CString,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    thread,
};

use crate::cgroup::Cgroup;

/// First argument of a hog.
pub(crate) const WORD: &str = "--hog";
/// First argument of what becomes a program in a cgroup and in a cgroup namespace that begins there.
pub(crate) const NAMESPACED: &str = "--namespaced";

/// A hog that runs; ended when dropped.
pub(crate) struct Hog {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Hog {
    /// Starts one, in a cgroup; it takes nothing yet.
    #[track_caller]
    pub(crate) fn start(cgroup: &Cgroup, arguments: &[&str]) -> Self {
        let hog = Self::start_anywhere(arguments);
        cgroup.admit(hog.pid());
        hog
    }

    /// Starts one where the suite is.
    #[track_caller]
    pub(crate) fn start_anywhere(arguments: &[&str]) -> Self {
        let mut child = Command::new("/proc/self/exe")
            .arg(WORD)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a hog starts");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut hog = Self { child, stdin, stdout };
        hog.expect_line("started");
        hog
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it do its next step.
    #[track_caller]
    pub(crate) fn go(&mut self) {
        self.stdin.write_all(b"g").expect("the hog listens");
    }

    /// Waits until it has what it asked for.
    #[track_caller]
    pub(crate) fn wait_until_full(&mut self) {
        self.expect_line("full");
    }

    /// Waits until it has what it asked for, or is gone.
    #[track_caller]
    pub(crate) fn is_full(&mut self) -> bool {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the hog speaks");
        assert!(line.is_empty() || line.trim_end() == "full", "the hog says {line:?}");
        !line.is_empty()
    }

    /// Waits for a line, and gives what follows its first word.
    #[track_caller]
    pub(crate) fn expect_line(&mut self, word: &str) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the hog speaks");
        let (first, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        assert_eq!(first, word, "the hog says {line:?}");
        rest.to_owned()
    }

    /// Waits for its end, which must be a SIGKILL.
    #[track_caller]
    pub(crate) fn must_be_killed(&mut self) {
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(9), "the hog ended with {status}");
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The hog's side: `KIND BYTES [NUMBER]`.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let argument = |index: usize| arguments.get(index).and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let bytes = argument(1);
    say("started");
    wait_for_go();
    match arguments.first().map(String::as_str) {
        Some("anon") => {
            volunteer(arguments.get(2));
            fill(bytes);
        }
        Some("named") => {
            call_oneself(arguments.get(2).expect("a name"));
            fill(bytes);
        }
        Some("shmem") => fill_shmem(bytes),
        Some("thread") => fill_in_thread(bytes),
        Some("leader-exits") => fill_without_leader(bytes),
        Some("group") => fill_with_members(bytes, argument(2)),
        Some("crowd") => fill_with_crowd(bytes, argument(2)),
        Some("shared-mm") => fill_with_sharer(bytes),
        Some("exits") => exit_with_thread(bytes),
        other => panic!("no such hog: {other:?}"),
    }
    ExitCode::SUCCESS
}

/// `DIRECTORY PROGRAM [ARGUMENT…]`: joins the cgroup, makes its namespace and becomes the program.
pub(crate) fn become_in_namespace(arguments: &[String]) -> ExitCode {
    let [directory, program, arguments @ ..] = arguments else { panic!("DIRECTORY PROGRAM [ARGUMENT…]") };
    fs::write(format!("{directory}/cgroup.procs"), "0").expect("the cgroup takes this process");
    // SAFETY: it takes no pointer; this process has one thread, and shares nothing of what is unshared.
    let made = unsafe { libc::unshare(libc::CLONE_NEWCGROUP) };
    assert_eq!(made, 0, "unshare: {}", std::io::Error::last_os_error());
    let error = Command::new(program).args(arguments).exec();
    panic!("cannot become {program}: {error}");
}

fn say(line: &str) {
    println!("{line}");
}

/// Waits for the word of the suite; when the suite is gone, nothing limits the memory, and none must be taken.
fn wait_for_go() {
    let mut word = [0];
    if std::io::stdin().read_exact(&mut word).is_err() {
        std::process::exit(1);
    }
}

/// Makes itself the first or the last to be killed.
fn volunteer(adjustment: Option<&String>) {
    if let Some(adjustment) = adjustment {
        fs::write("/proc/self/oom_score_adj", adjustment).expect("the adjustment is allowed");
    }
}

/// Takes a name of any bytes, given in hexadecimal.
fn call_oneself(hexadecimal: &str) {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("a byte");
    let name: Vec<u8> = hexadecimal.as_bytes().chunks(2).map(byte).collect();
    rustix::thread::set_name(&CString::new(name).expect("no NUL")).expect("the name is taken");
}

/// Takes anonymous memory, says so and keeps it.
fn fill(bytes: usize) {
    let memory = take(bytes);
    say("full");
    wait_for_go();
    std::hint::black_box(&memory);
}

fn take(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0_u8; bytes];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
    memory
}

/// Takes memory that belongs to no process: written to a file in memory and not mapped.
fn fill_shmem(bytes: usize) {
    let file = rustix::fs::memfd_create("oom-watcher-test", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    let mut file = fs::File::from(file);
    let block = vec![1_u8; 65536];
    for _ in 0..bytes / block.len() {
        file.write_all(&block).expect("it takes the block");
    }
    say("full");
    wait_for_go();
}

/// A thread of another name takes the memory.
fn fill_in_thread(bytes: usize) {
    fs::write("/proc/self/comm", "the-leader").expect("the name is taken");
    let thread = thread::Builder::new().name("the-thread".to_owned()).spawn(move || fill(bytes)).expect("a thread");
    thread.join().expect("it ends");
}

/// The leader ends before the memory is taken: the process lives on in a thread.
fn fill_without_leader(bytes: usize) {
    fs::write("/proc/self/comm", "dead-leader").expect("the name is taken");
    thread::Builder::new()
        .name("the-survivor".to_owned())
        .spawn(move || {
            let tgid = std::process::id();
            let state = format!("/proc/{tgid}/task/{tgid}/stat");
            while !fs::read_to_string(&state).is_ok_and(|stat| stat.contains(") Z ")) {
                thread::sleep(std::time::Duration::from_millis(1));
            }
            fill(bytes);
        })
        .expect("a thread");
    // SAFETY: ends this thread alone; nothing on its stack is used by the other, and it holds no lock.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// Starts members that take next to nothing, then takes memory.
fn fill_with_members(bytes: usize, members: usize) {
    let children: Vec<Child> = (0..members)
        .map(|_| {
            Command::new("/proc/self/exe")
                .args([WORD, "anon", "4096"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("a member starts")
        })
        .collect();
    fill(bytes);
    drop(children);
}

/// Forks members that have nothing of their own and do nothing; when told to, takes memory.
fn fill_with_crowd(bytes: usize, members: usize) {
    for _ in 0..members {
        // SAFETY: this process has one thread, and the child calls nothing but async-signal-safe functions.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: takes no pointer; the member shall not outlive the process that made it.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            loop {
                // SAFETY: takes no pointer.
                unsafe { libc::pause() };
            }
        }
    }
    say("crowded");
    wait_for_go();
    fill(bytes);
}

/// A second process that shares the memory (`CLONE_VM` without `CLONE_THREAD`) and does nothing.
fn fill_with_sharer(bytes: usize) {
    extern "C" fn sleep_on(_: *mut libc::c_void) -> libc::c_int {
        loop {
            // SAFETY: the call takes no pointer; the sharer may touch nothing that the other process uses.
            unsafe { libc::pause() };
        }
    }
    let stack = Box::leak(vec![0_u8; 64 * 1024].into_boxed_slice());
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack is leaked, so it outlives the sharer; the function returns never and touches no memory but its stack.
    let pid = unsafe { libc::clone(sleep_on, top.cast(), libc::CLONE_VM | libc::SIGCHLD, std::ptr::null_mut()) };
    assert!(pid > 0, "clone: {}", std::io::Error::last_os_error());
    say(&format!("sharer {pid}"));
    fill(bytes);
}

/// Takes memory, waits, and ends as a whole while a second thread lives.
fn exit_with_thread(bytes: usize) {
    let memory = take(bytes);
    thread::spawn(|| {
        loop {
            thread::park();
        }
    });
    say("full");
    wait_for_go();
    std::hint::black_box(&memory);
    std::process::exit(0);
}
