//! scratch
use raft_host::fsm::{FsmLoader as _, Limits};
use raft_host::wasm::WasmLoader;
use raft_host_tests::hostile::large;
fn main() {
    let mut a = std::env::args().skip(1);
    let what = a.next().unwrap();
    let n: Vec<u32> = a.map(|x| x.parse().unwrap()).collect();
    let module = match what.as_str() {
        "data" => large::data(n[0] as u8),
        "padding" => large::padding(n[0] as usize),
        "functions" => large::functions(n[0]),
        "locals" => large::locals(n[0], n[1]),
        "straight" => large::straight(n[0]),
        "nested" => large::nested(n[0]),
        "nested_results" => large::nested_results(n[0], n[1] as usize),
        "merges" => large::merges(n[0], n[1]),
        "branch_tables" => large::branch_tables(n[0], n[1]),
        "exits" => large::exits(n[0], n[1]),
        "globals" => large::globals(n[0]),
        file => std::fs::read(file).unwrap(),
    };
    let start = std::time::Instant::now();
    let checked = raft_host::wasm::check_module(&module, &Limits::default());
    let t1 = start.elapsed();
    let loader = WasmLoader::new(None).unwrap();
    let r = loader.check(&module, &Limits::default()).unwrap();
    let hwm = std::fs::read_to_string("/proc/self/status").unwrap();
    let hwm = hwm.lines().find(|l| l.starts_with("VmHWM")).unwrap().to_owned();
    let mut e = format!("{:?}", r.err()); e.truncate(300);
    println!("{what} {n:?}: {} bytes, check {t1:?} ({}), all {:?}, {hwm}, {e}", module.len(), checked.is_ok(), start.elapsed());
}
