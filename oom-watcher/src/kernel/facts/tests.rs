use super::*;

#[test]
fn scratch() {
    let t = std::time::Instant::now();
    let f = Facts::probe(&Roots::default());
    eprintln!("{f:#?} {:?}", t.elapsed());
    let t = std::time::Instant::now();
    Symbols::read(Path::new("/proc/kallsyms"));
    eprintln!("{:?}", t.elapsed());
}
