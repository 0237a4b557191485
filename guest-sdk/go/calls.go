package raftfsm

// The calls of the ABI, the same in a wasm module and in tests. Each returns the reason of a rejection, or nil.

func callFound(m Machine, h host) error {
	if founder, ok := m.(Founder); ok {
		return founder.Found(&Context{h})
	}
	return nil
}

func callApply(m Machine, h host, length int) error {
	return answer(h)(m.Apply(&Context{h}, input(h, length)))
}

func callQuery(m Machine, h host, length int) error {
	return answer(h)(m.Query(&Context{h}, input(h, length)))
}

func callClassify(m Machine, h host, length int) error {
	if classifier, ok := m.(Classifier); ok {
		h.write([]byte(classifier.Classify(&Context{h}, input(h, length))))
	}
	return nil
}

func callCheck(m Machine, h host) error {
	if checker, ok := m.(Checker); ok {
		return checker.Check(&Context{h})
	}
	return nil
}

func callStateVersion(m Machine, h host) error {
	if versioner, ok := m.(Versioner); ok {
		h.write([]byte(versioner.StateVersion()))
	}
	return nil
}

func callRestores(m Machine, h host, length int) error {
	if versioner, ok := m.(Versioner); ok {
		return versioner.Restores(string(input(h, length)))
	}
	return nil
}

func callSnapshot(m Machine, h host) error {
	out := &Writer{host: h}
	if err := m.Snapshot(&Context{h}, out); err != nil {
		return err
	}
	out.flush()
	return nil
}

func callRestore(m Machine, h host, length int) error {
	in := &Reader{host: h, coming: length}
	return in.finish(m.Restore(&Context{h}, in))
}

// input reads the whole input into memory of its own, so that a machine may keep parts of it.
func input(h host, length int) []byte {
	p := make([]byte, length)
	filled := 0
	for filled < length {
		n := h.read(p[filled:])
		if n == 0 {
			break
		}
		filled += n
	}
	return p[:filled]
}

// answer writes what a machine answered, if it did not reject.
func answer(h host) func([]byte, error) error {
	return func(p []byte, err error) error {
		if err == nil {
			h.write(p)
		}
		return err
	}
}
