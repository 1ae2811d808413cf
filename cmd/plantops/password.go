package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/plantops/plantops/store"
)

// maxPasswordFileBytes is more than any password may have.
const maxPasswordFileBytes = 4096

// passwordSource says where a password comes from; never from the command line, which others can see.
type passwordSource struct {
	file     string // "-" is standard input
	generate bool
}

// unseen is the password if nobody has seen it yet: only one that was drawn is shown.
func (s passwordSource) unseen(password string) string {
	if s.generate {
		return password
	}
	return ""
}

func addPasswordFlags(cmd *cobra.Command, source *passwordSource) {
	cmd.Flags().StringVar(&source.file, "password-file", "", "read the password from `FILE`, or from standard input with -")
	cmd.Flags().BoolVar(&source.generate, "generate", false, "draw a random password and show it once")
}

// password gets the password for name from where source says; on a terminal it asks for it twice.
func (a *app) password(cmd *cobra.Command, source passwordSource, name string) (string, error) {
	var password string
	var err error
	switch {
	case source.generate && source.file != "":
		return "", usageError(cmd, errors.New("give --password-file or --generate, not both"))
	case source.generate:
		return rand.Text(), nil
	case source.file == "-":
		password, err = a.passwordFromStdin()
	case source.file != "":
		password, err = passwordFromFile(source.file)
	case a.stdin != nil && term.IsTerminal(int(a.stdin.Fd())):
		password, err = a.askPassword(cmd.Context(), name)
	default:
		return "", usageError(cmd, errors.New("there is no terminal to ask for the password: give --password-file FILE, --password-file - or --generate"))
	}
	if err != nil {
		return "", err
	}
	return password, store.CheckPassword(password)
}

func (a *app) passwordFromStdin() (string, error) {
	if a.stdin == nil {
		return "", errors.New("read password: there is no standard input")
	}
	return readPassword(a.stdin)
}

func passwordFromFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	defer file.Close()
	return readPassword(file)
}

// readPassword reads everything; one line end after the password is not part of it.
func readPassword(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxPasswordFileBytes))
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

// askPassword asks on the terminal, without showing what is typed, until it is long enough and twice the same.
func (a *app) askPassword(ctx context.Context, name string) (string, error) {
	for {
		first, err := a.readHidden(ctx, fmt.Sprintf("Password for %s: ", name))
		if err != nil {
			return "", err
		}
		if err := store.CheckPassword(first); err != nil {
			a.warn("%s; try again", err)
			continue
		}
		second, err := a.readHidden(ctx, "The same again: ")
		if err != nil {
			return "", err
		}
		if first == second {
			return first, nil
		}
		a.warn("the two differ; try again")
	}
}

func (a *app) readHidden(ctx context.Context, prompt string) (string, error) {
	fd := int(a.stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	fmt.Fprint(a.stderr, prompt)
	type answer struct {
		text []byte
		err  error
	}
	typed := make(chan answer, 1)
	go func() { // nothing interrupts the reading of a terminal; the program ends soon after ctx
		text, err := term.ReadPassword(fd)
		typed <- answer{text, err}
	}()
	select {
	case got := <-typed:
		fmt.Fprintln(a.stderr)
		if got.err != nil {
			return "", fmt.Errorf("read password: %w", got.err)
		}
		return string(got.text), nil
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
		return "", errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}
