//! A kernel that says there is no memory: for one thread, for the system calls that a test means.
#![expect(unsafe_code, reason = "filters of system calls are installed by the bare call")]

use std::mem::offset_of;

use crate::wasm::memory::{make_signal_stack, page_size};

/// How a word of a system call's data is to be for it to be refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    Is(usize, u32),
    AtLeast(usize, u32),
}

/// The number of the system call.
const NUMBER: usize = offset_of!(libc::seccomp_data, nr);

/// Lower half of an argument.
const fn argument(number: usize) -> usize {
    let at = offset_of!(libc::seccomp_data, args) + number * 8;
    if cfg!(target_endian = "little") { at } else { at + 4 }
}

/// Upper half of an argument.
const fn argument_high(number: usize) -> usize {
    argument(number) ^ 4
}

/// Making a single page writable.
pub(super) fn opening_a_page() -> Vec<Word> {
    let mut words = opening_anything();
    words.push(Word::Is(argument(1), page_size() as u32));
    words
}

/// Making any memory writable.
pub(super) fn opening_anything() -> Vec<Word> {
    let writable = (libc::PROT_READ | libc::PROT_WRITE) as u32;
    vec![Word::Is(NUMBER, libc::SYS_mprotect as u32), Word::Is(argument(2), writable)]
}

/// Reserving the addresses of a guest's memory, or as many of anything else.
pub(super) fn reserving_4_gib() -> Vec<Word> {
    vec![Word::Is(NUMBER, libc::SYS_mmap as u32), Word::AtLeast(argument_high(1), 1)]
}

/// Giving memory back.
pub(super) fn giving_back() -> Vec<Word> {
    let dont_need = libc::MADV_DONTNEED as u32;
    vec![Word::Is(NUMBER, libc::SYS_madvise as u32), Word::Is(argument(2), dont_need)]
}

/// Making a file that is only in memory.
pub(super) fn making_a_memory_file() -> Vec<Word> {
    vec![Word::Is(NUMBER, libc::SYS_memfd_create as u32)]
}

/// Does `work` on a thread whose system calls of that kind fail for want of memory. It has run
/// guests before.
pub(super) fn refused<T: Send>(words: Vec<Word>, work: impl FnOnce() -> T + Send) -> T {
    on_new_thread(move || {
        make_signal_stack().unwrap();
        install(&words);
        work()
    })
}

/// The same on a thread that has never run a guest.
pub(super) fn refused_at_first<T: Send>(words: Vec<Word>, work: impl FnOnce() -> T + Send) -> T {
    on_new_thread(move || {
        install(&words);
        work()
    })
}

fn on_new_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(16 << 20).spawn_scoped(scope, work);
        match thread.expect("a thread").join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[repr(C)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    instructions: *const Instruction,
}

fn install(words: &[Word]) {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump = |how| (libc::BPF_JMP | how | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let plain = |code, operand| Instruction { code, if_true: 0, if_false: 0, operand };
    let mut program = Vec::new();
    for (number, word) in words.iter().enumerate() {
        let (at, code, operand) = match *word {
            Word::Is(at, value) => (at, jump(libc::BPF_JEQ), value),
            Word::AtLeast(at, value) => (at, jump(libc::BPF_JGE), value),
        };
        program.push(plain(load, at as u32));
        // Over the words that are left, of two instructions each, and the refusal.
        let if_false = (2 * (words.len() - number - 1) + 1) as u8;
        program.push(Instruction { code, if_true: 0, if_false, operand });
    }
    program.push(plain(answer, libc::SECCOMP_RET_ERRNO | libc::ENOMEM as u32));
    program.push(plain(answer, libc::SECCOMP_RET_ALLOW));
    let program = Program { len: program.len() as u16, instructions: program.as_ptr() };
    // SAFETY: the program is what the call expects and outlives it; a filter that allows or
    // refuses system calls of this thread makes nothing unsound that checks their results.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let filter = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, filter, &raw const program), 0);
    }
}
