package data

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// alphabet is n characters of a text in which every place can be told: no two are alike
// within 26 of each other.
func alphabet(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteByte(byte('a' + i%26))
	}
	return b.String()
}

// textSource writes a text to a file and names it.
func textSource(t *testing.T, content string, context, train, test int) Source {
	t.Helper()
	s := Source{Source: Text, Path: filepath.Join(t.TempDir(), "text"), Context: context, Train: train, Test: test}
	write(t, s.Path, []byte(content))
	return s
}

func open(t *testing.T, s Source) (train, test Dataset) {
	t.Helper()
	train, test, err := Open(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return train, test
}

// windows prints the samples of a text as they stand in it: the window, then its labels.
func windows(d Dataset, vocabulary string) []string {
	var list []string
	v, s := []rune(vocabulary), NewBatch(d, 1)
	for i := range d.Len() {
		d.Sample(i, s)
		var b strings.Builder
		for _, t := range s.Tokens {
			b.WriteRune(v[t])
		}
		b.WriteByte('>')
		for _, t := range s.Labels {
			b.WriteRune(v[t])
		}
		list = append(list, b.String())
	}
	return list
}

// Thirty characters: 27 to train on, the last 3 held out. Each label is the character after.
func TestTextWindows(t *testing.T) {
	const content = "the cat sat on the mat, ätsch!"
	const vocabulary = " !,acehmnostä"
	for _, c := range []struct {
		context, train, test int
		want                 string
	}{
		{2, 5, 1, "th>he;at>t ;t > o;th>he;at>t,|ch>h!"},
		{1, 3, 2, "t>h;s>a;e> |c>h;h>!"},
	} {
		train, test := open(t, textSource(t, content, c.context, c.train, c.test))
		want := fmt.Sprintf("{Kind:1 Shape:[%d] Classes:13 Entries:0 Fields:0 Unit:0}", c.context)
		if a, b := fmt.Sprintf("%+v", train.Form()), fmt.Sprintf("%+v", test.Form()); a != want || b != want {
			t.Errorf("%s and %s, want %s", a, b, want)
		}
		got := strings.Join(windows(train, vocabulary), ";") + "|" + strings.Join(windows(test, vocabulary), ";")
		if got != c.want {
			t.Errorf("windows of %d: %q, want %q", c.context, got, c.want)
		}
	}
}

// With as many windows as there are places, every place has one; the part held out begins
// where the part trained on ends.
func TestTextWindowsAtEveryPlace(t *testing.T) {
	content := alphabet(100)
	train, test := open(t, textSource(t, content, 4, 86, 6))
	all := windows(train, alphabet(26))
	for i, w := range all {
		if want := content[i:i+4] + ">" + content[i+1:i+5]; w != want {
			t.Errorf("window %d is %s, want %s", i, w, want)
		}
	}
	for i, w := range windows(test, alphabet(26)) {
		if want := content[90+i:94+i] + ">" + content[91+i:95+i]; w != want {
			t.Errorf("held-out window %d is %s, want %s", i, w, want)
		}
	}
}

func TestTextIdentity(t *testing.T) {
	digest := func(s Source) Digest { return Identity(open(t, s)) }
	content := alphabet(1000)
	base := digest(textSource(t, content, 8, 50, 10))
	if digest(textSource(t, content, 8, 50, 10)) != base {
		t.Error("the same text under two paths has two digests")
	}
	for name, s := range map[string]Source{
		"context":                  textSource(t, content, 9, 50, 10),
		"train":                    textSource(t, content, 8, 51, 10),
		"test":                     textSource(t, content, 8, 50, 11),
		"other order":              textSource(t, strings.Replace(content, "ab", "ba", 1), 8, 50, 10),
		"same tokens, other signs": textSource(t, strings.ToUpper(content), 8, 50, 10),
		"longer":                   textSource(t, content+"m", 8, 50, 10),
	} {
		if digest(s) == base {
			t.Errorf("%s: the digest is the same", name)
		}
	}
}

func TestTextFaults(t *testing.T) {
	all := &strings.Builder{}
	for r := range rune(maxCharacters + 1) {
		all.WriteRune(r + 0x10000)
	}
	source := func(content string, context, train, test int) Source {
		return textSource(t, content, context, train, test)
	}
	none, folder := source("x", 1, 1, 1), source("x", 1, 1, 1)
	none.Path += "-missing"
	folder.Path = filepath.Dir(folder.Path)
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	missing := "expected a readable file, found no such file or directory: check the path and who may read it; paths are relative to the working directory, " + here
	for name, c := range map[string]struct {
		s    Source
		want string // after the path
	}{
		"missing":       {none, missing},
		"a folder":      {folder, "expected a file, found a directory: name the file in it"},
		"empty":         {source("", 1, 1, 1), "expected text, found an empty file: name a file that holds some"},
		"not UTF-8":     {source("one\ntwo \xe9t\xe9\n", 1, 1, 1), "line 2: expected text in UTF-8, found the byte 0xe9 (byte 9 of the file): convert the file, for example with iconv -f LATIN1 -t UTF-8"},
		"cut short":     {source("abc\xe2\x82", 1, 1, 1), "line 1: expected text in UTF-8, found the byte 0xe2 (byte 4 of the file): convert the file, for example with iconv -f LATIN1 -t UTF-8"},
		"one sign":      {source("aaaa", 1, 1, 1), "expected at least 2 different characters, found only 'a': name a text that has something to learn"},
		"many signs":    {source(all.String(), 1, 1, 1), "expected at most 32768 different characters, found 32769: each is a token of the model; name a text in one language"},
		"short":         {source(alphabet(40), 36, 1, 1), "expected more than 36 characters (data.context) in the first nine tenths of the text, found 36: lower data.context, or name a longer text"},
		"short end":     {source(alphabet(40), 4, 1, 1), "expected more than 4 characters (data.context) in the last tenth of the text, found 4: lower data.context, or name a longer text"},
		"many windows":  {source(alphabet(100), 4, 87, 6), "expected room for 87 windows of 4 characters in the first nine tenths of the text, found 90 characters: lower data.train to 86 at most"},
		"many held out": {source(alphabet(100), 4, 86, 7), "expected room for 7 windows of 4 characters in the last tenth of the text, found 10 characters: lower data.test to 6 at most"},
	} {
		_, _, err := Open(t.Context(), c.s, nil)
		var of *FileError
		separator := ": "
		if strings.HasPrefix(c.want, "line ") {
			separator = ", "
		}
		if want := "data.path: " + c.s.Path + separator + c.want; err == nil || err.Error() != want || !errors.As(err, &of) {
			t.Errorf("%s:\n got %v\nwant %s", name, err, want)
		}
	}
}
