//! The macro that turns a state machine into a module.

/// Exports a [`StateMachine`](crate::StateMachine) under the names of the ABI.
///
/// Call it once, in the library crate (`crate-type = ["cdylib", "rlib"]`) that becomes the
/// module. It does nothing but check the type on targets other than wasm32.
///
/// `export!(Machine, classes)` exports the classes of its commands too: see [`Classes`](crate::Classes).
#[macro_export]
macro_rules! export {
    (@module $machine:ty; $($classify:item)?) => {
        const _: () = {
            const fn is_state_machine<M: $crate::StateMachine>() {}
            is_state_machine::<$machine>()
        };

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

            $($classify)?
        };
    };
    ($machine:ty) => {
        $crate::export!(@module $machine;);
    };
    ($machine:ty, classes) => {
        const _: () = {
            const fn has_classes<M: $crate::Classes>() {}
            has_classes::<$machine>()
        };

        $crate::export!(@module $machine;
            #[unsafe(export_name = "classify")]
            extern "C" fn classify(len: usize) -> i32 {
                SLOT.classify(len)
            }
        );
    };
}
