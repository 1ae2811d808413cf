package sqldoor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What may be asked. What a word of these begins may write all the same (WITH ... INSERT), which the connection refuses.
var readingWords = []string{"SELECT", "WITH", "VALUES", "EXPLAIN"}

// Statement returns the one statement of a text, without what ends it, or says why it is none that may be asked.
func Statement(text string) (string, error) {
	text = strings.TrimSpace(text)
	first, end := "", -1
	for at := 0; at < len(text); {
		n := token(text[at:])
		part := text[at : at+n]
		switch {
		case isSpace(part):
		case end >= 0:
			if part != ";" {
				return "", errors.New("there is more than one statement: ask one at a time")
			}
		case part == ";":
			end = at
		case first == "":
			first = strings.ToUpper(part)
		}
		at += n
	}
	if strings.ContainsRune(text, 0) {
		return "", errors.New("the statement has a zero byte")
	}
	if end >= 0 {
		text = text[:end]
	}
	switch {
	case first == "":
		return "", errors.New("there is no statement")
	case !slices.Contains(readingWords, first):
		return "", fmt.Errorf("%s: %w; use SELECT, WITH, VALUES or EXPLAIN", first, ErrWrites)
	}
	return text, nil
}

// token is the length of what a text begins with, as SQLite's tokenizer has it: space and comments, what is quoted, words, and
// single characters.
func token(text string) int {
	switch c := text[0]; {
	case isSpaceByte(c):
		return 1 + countWhile(text[1:], isSpaceByte)
	case strings.HasPrefix(text, "--"):
		return until(text, 2, "\n")
	case strings.HasPrefix(text, "/*"):
		return until(text, 2, "*/")
	case c == '\'', c == '"', c == '`':
		return until(text, 1, string(c)) // two of them end one and begin the next
	case c == '[':
		return until(text, 1, "]")
	case isWordByte(c):
		return 1 + countWhile(text[1:], isWordByte)
	}
	return 1
}

func until(text string, from int, end string) int {
	if i := strings.Index(text[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(text)
}

func countWhile(text string, is func(byte) bool) (n int) {
	for n < len(text) && is(text[n]) {
		n++
	}
	return n
}

func isSpace(part string) bool {
	return isSpaceByte(part[0]) || strings.HasPrefix(part, "--") || strings.HasPrefix(part, "/*")
}

func isSpaceByte(c byte) bool { return strings.IndexByte(" \t\n\f\r", c) >= 0 }

func isWordByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}
