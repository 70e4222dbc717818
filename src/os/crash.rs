//! What does the program say when it meets a bug of its own?
//!
//! In what `scripts/build` makes, a failed assertion is an illegal instruction: the texts of all
//! that can never happen are 37 KiB. So the address of that instruction is said instead, and
//! `scripts/build --where ADDRESS` finds the line. Other builds panic as usual.

use super::check;
use std::mem::MaybeUninit;

/// Those that a bug leads to.
const SIGNALS: [libc::c_int; 4] = [libc::SIGILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE];

const TEXT: &[u8] = concat!(
    "swarmdd: version ",
    env!("CARGO_PKG_VERSION"),
    " has a bug at 0x"
)
.as_bytes();

unsafe extern "C" {
    /// Where the program begins in memory. Defined by the linker.
    safe static __ehdr_start: u8;
}

/// From now on these signals are told before they end the program.
pub fn tell_before_the_end() {
    // SAFETY: zeros are an action with an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = tell as *const () as usize;
    // RESETHAND: the next one ends the program.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
    for signal in SIGNALS {
        // SAFETY: `tell` has the type that SA_SIGINFO asks for, and calls nothing but write(2).
        let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        check(result).expect("the signals exist");
    }
}

extern "C" fn tell(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes the state of the program, by the type of signal.h.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let begin = &raw const __ehdr_start as usize;
    let mut line = [0; TEXT.len() + 17];
    line[..TEXT.len()].copy_from_slice(TEXT);
    let address = (registers[libc::REG_RIP as usize] as usize).wrapping_sub(begin);
    let digits = &mut line[TEXT.len()..];
    for (place, digit) in digits.iter_mut().enumerate().take(16) {
        *digit = b"0123456789abcdef"[(address >> (60 - 4 * place)) & 15];
    }
    digits[16] = b'\n';
    // SAFETY: the kernel reads `line`, which stays until the call is over. The signal is blocked
    // until we return, and then ends the program.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
        libc::raise(signal);
    }
}
