package raftfsm

import (
	"runtime"
	"strconv"
	"strings"
)

// trap ends the call with the instruction `unreachable`: in panic_wasm.s.
func trap()

// trapOnPanic tells the panic's message and place to the log of the node, and traps. Without it the runtime would
// print a trace of many lines and leave by proc_exit.
func trapOnPanic() {
	value := recover()
	if value == nil {
		return
	}
	imports{}.log(LevelError, "panic: "+message(value)+place())
	trap()
}

func message(value any) string {
	switch v := value.(type) {
	case error:
		return v.Error()
	case interface{ String() string }:
		return v.String()
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	}
	return "with a value that is no text"
}

// place is where the panic began: the innermost function that belongs to the program.
func place() string {
	var counters [64]uintptr
	frames := runtime.CallersFrames(counters[:runtime.Callers(2, counters[:])])
	for {
		frame, more := frames.Next()
		own := strings.HasPrefix(frame.Function, "runtime.") || strings.Contains(frame.Function, "raftfsm.trapOnPanic")
		if !own && frame.Function != "" {
			return " (" + frame.Function + ", " + frame.File + ":" + strconv.Itoa(frame.Line) + ")"
		}
		if !more {
			return ""
		}
	}
}
