package certs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"syscall"
	"time"
)

// record adds a certificate of g to the index. The revocation list comes first: where there is an index there is a list.
func (a *Authority) record(g *generation, i Issued) error {
	list, err := a.readIndex()
	if err != nil {
		return err
	}
	if !exists(a.ownList) && !exists(a.index) {
		data, err := g.encodeLists(nil, revocations{}, a.now())
		if err != nil {
			return err
		}
		if err := writeFiles(file{a.ownList, data, 0o644}); err != nil {
			return err
		}
	}
	return writeFiles(file{a.index, encodeIndex(append(list, i)), 0o600})
}

// exclusiveWait outlasts another command, which takes milliseconds.
const exclusiveWait = 5 * time.Second

// exclusively calls do while no other process writes the index or the list, or makes another authority. The kernel gives the lock back when
// the process ends, however it ends.
func (a *Authority) exclusively(do func() error) error {
	dir, err := os.Open(a.dir)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // gives the lock back
	for deadline := time.Now().Add(exclusiveWait); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return do()
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", a.dir, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("lock %s: another command is writing there", a.dir)
		}
	}
}

func (a *Authority) readIndex() ([]Issued, error) {
	data, err := readRegular(a.index, nil)
	if isMissing(err) {
		return nil, nil
	}
	if err == nil {
		var list []Issued
		if list, err = parseIndex(data); err == nil {
			return list, nil
		}
	}
	return nil, fmt.Errorf("index %s %w", a.index, explain(err))
}

// parseIndex reads one certificate a line, written exactly as encodeIndex writes it: what is not was changed by
// somebody else, and a certificate that was lost that way could not be revoked.
func parseIndex(data []byte) ([]Issued, error) {
	var list []Issued
	seen := map[string]int{}
	number := 0
	for line := range bytes.Lines(data) {
		number++
		var i Issued
		err := json.Unmarshal(line, &i)
		if err == nil {
			err = i.check()
		}
		if err == nil && !bytes.Equal(encodeIndex([]Issued{i}), line) {
			err = errors.New("it is not written as this program writes it")
		}
		if first := seen[i.Serial]; err == nil && first != 0 {
			err = fmt.Errorf("it has the serial of line %d", first)
		}
		if err != nil {
			return nil, fmt.Errorf("is damaged in line %d: %w", number, err)
		}
		seen[i.Serial] = number
		list = append(list, i)
	}
	return list, nil
}

func (i Issued) check() error {
	n, ok := new(big.Int).SetString(i.Serial, 16)
	switch {
	case !ok || n.Sign() <= 0 || serialText(n) != i.Serial:
		return fmt.Errorf("%.80q is no serial", i.Serial)
	case i.NotBefore.IsZero() || i.NotAfter.Before(i.NotBefore):
		return errors.New("the dates make no sense")
	case i.State != "":
		return errors.New("the state is for the revocation list to say")
	}
	return nil
}

func encodeIndex(list []Issued) []byte {
	var out bytes.Buffer
	for _, i := range list {
		line, err := json.Marshal(i)
		if err != nil {
			panic(err) // x509 writes and reads years up to 9999 only
		}
		out.Write(append(line, '\n'))
	}
	return out.Bytes()
}
