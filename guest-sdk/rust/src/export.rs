//! The macro that turns a state machine into a module.

/// Exports a [`StateMachine`](crate::StateMachine) under the names of the ABI.
///
/// Call it once, in the library crate (`crate-type = ["cdylib", "rlib"]`) that becomes the
/// module. It does nothing but check the type on targets other than wasm32.
///
/// What a machine has beyond a [`StateMachine`](crate::StateMachine) is named behind it, in any order:
///
/// | word | what it must be |
/// |---|---|
/// | `classes` | [`Classes`](crate::Classes) |
/// | `check` | [`Check`](crate::Check) |
/// | `versions` | [`Versions`](crate::Versions) |
/// | `adopt` | [`Adopt`](crate::Adopt) |
///
/// ```ignore
/// raft_fsm_sdk::export!(Bank, classes, check, versions);
/// ```
#[macro_export]
macro_rules! export {
    ($machine:ty $(, $more:ident)* $(,)?) => {
        const _: () = {
            const fn is_state_machine<M: $crate::StateMachine>() {}
            is_state_machine::<$machine>()
        };

        $($crate::export!(@is $more $machine);)*

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            #[unsafe(export_name = "raft_fsm_window")]
            static WINDOW: $crate::guest::Window = $crate::guest::Window::new();

            static SLOT: $crate::guest::Slot<$machine> = $crate::guest::Slot::new(&WINDOW);

            #[unsafe(export_name = "raft_fsm_abi_v1")]
            extern "C" fn abi_marker() {}

            #[unsafe(export_name = "_initialize")]
            extern "C" fn initialize() {
                SLOT.initialize()
            }

            #[unsafe(export_name = "init")]
            extern "C" fn init() -> i32 {
                SLOT.init()
            }

            #[unsafe(export_name = "apply")]
            extern "C" fn apply(len: usize) -> i32 {
                SLOT.apply(len)
            }

            #[unsafe(export_name = "query")]
            extern "C" fn query(len: usize) -> i32 {
                SLOT.query(len)
            }

            #[unsafe(export_name = "snapshot")]
            extern "C" fn snapshot() -> i32 {
                SLOT.snapshot()
            }

            #[unsafe(export_name = "restore")]
            extern "C" fn restore(len: usize) -> i32 {
                SLOT.restore(len)
            }

            $($crate::export!(@export $more);)*
        };
    };
    (@is classes $machine:ty) => {
        const _: () = {
            const fn has_classes<M: $crate::Classes>() {}
            has_classes::<$machine>()
        };
    };
    (@export classes) => {
        #[unsafe(export_name = "classify")]
        extern "C" fn classify(len: usize) -> i32 {
            SLOT.classify(len)
        }
    };
    (@is check $machine:ty) => {
        const _: () = {
            const fn has_check<M: $crate::Check>() {}
            has_check::<$machine>()
        };
    };
    (@export check) => {
        #[unsafe(export_name = "check")]
        extern "C" fn check() -> i32 {
            SLOT.check()
        }
    };
    (@is versions $machine:ty) => {
        const _: () = {
            const NAME: &str = <$machine as $crate::Versions>::STATE_VERSION;
            assert!(
                $crate::is_state_version(NAME),
                "STATE_VERSION must be 1 to 64 letters, digits and any of . _ - /"
            );
        };
    };
    (@export versions) => {
        #[unsafe(export_name = "state_version")]
        extern "C" fn state_version() -> i32 {
            SLOT.state_version()
        }

        #[unsafe(export_name = "restores")]
        extern "C" fn restores(len: usize) -> i32 {
            SLOT.restores(len)
        }
    };
    (@is adopt $machine:ty) => {
        const _: () = {
            const fn has_adopt<M: $crate::Adopt>() {}
            has_adopt::<$machine>()
        };
    };
    (@export adopt) => {
        #[unsafe(export_name = "adopt")]
        extern "C" fn adopt(len: usize) -> i32 {
            SLOT.adopt(len)
        }
    };
}
