package raftfsm

const (
	statusOk       = 0
	statusRejected = 1
)

var machine Machine

// current makes the machine at the first call: when the program's init functions have run.
func current() Machine {
	if machine == nil {
		if construct == nil {
			panic("no state machine: call raftfsm.Register in an init function of package main")
		}
		machine = construct()
	}
	return machine
}

//go:wasmexport raft_fsm_abi_v1
func exportMarker() {}

//go:wasmexport init
func exportInit() int32 {
	defer trapOnPanic()
	return status(callFound(current(), imports{}))
}

//go:wasmexport apply
func exportApply(length uint32) int32 {
	defer trapOnPanic()
	return status(callApply(current(), imports{}, int(length)))
}

//go:wasmexport query
func exportQuery(length uint32) int32 {
	defer trapOnPanic()
	return status(callQuery(current(), imports{}, int(length)))
}

// ExportClassify is what a program exports as `classify`: see [Classifier].
func ExportClassify(length uint32) int32 {
	defer trapOnPanic()
	return status(callClassify(current(), imports{}, int(length)))
}

// ExportCheck is what a program exports as `check`: see [Checker].
func ExportCheck() int32 {
	defer trapOnPanic()
	return status(callCheck(current(), imports{}))
}

// ExportStateVersion is what a program exports as `state_version`: see [Versioner].
func ExportStateVersion() int32 {
	defer trapOnPanic()
	return status(callStateVersion(current(), imports{}))
}

// ExportRestores is what a program exports as `restores`: see [Versioner].
func ExportRestores(length uint32) int32 {
	defer trapOnPanic()
	return status(callRestores(current(), imports{}, int(length)))
}

//go:wasmexport snapshot
func exportSnapshot() int32 {
	defer trapOnPanic()
	return status(callSnapshot(current(), imports{}))
}

//go:wasmexport restore
func exportRestore(length uint32) int32 {
	defer trapOnPanic()
	return status(callRestore(current(), imports{}, int(length)))
}

func status(err error) int32 {
	if err == nil {
		return statusOk
	}
	imports{}.write([]byte(err.Error()))
	return statusRejected
}
