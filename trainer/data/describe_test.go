package data

import (
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	regression := rowsSource(t, LIBSVM, "1.5 1:1\n2.5 1:1\n", "3 1:1\n")
	regression.Task = Regression
	for _, c := range []struct {
		s    Source
		want string
	}{
		{csvSource(t, "id,town,x,y\n7,\"A, B\",1,no\n7,C,3,no\n7,C,?,yes\n", "id,town,x,y\n7,C,2,no\n", byLabel("y")), `
samples        3 to train on, 1 held out
a sample       4 numbers, made of 2 columns
column "town"  one of 2: "A, B", C
column "x"     a number, mean 2, standard deviation 1; 1 missing
column "id"    not used: always the same number
to be found    "y", one of 2 classes: no (2), yes (1)
`},
		{rowsSource(t, LIBSVM, "-1 1:1 5:2\n+1 2:1\n-1 3:1 4:1 5:1\n", "1 1:1\n"), `
samples      3 to train on, 1 held out
a sample     5 features, of which 2 on average and 3 at most are listed, the others being 0
scale        1 of them go beyond 1 or -1, and are divided by their largest magnitude
to be found  one of 2 classes: -1 (2), 1 (1)
`},
		{regression, `
samples      2 to train on, 1 held out
a sample     1 features, of which 1 on average and 1 at most are listed, the others being 0
to be found  a number, mean 2, standard deviation 0.5
`},
		{textSource(t, alphabet(1000), 8, 50, 10), `
samples   50 to train on, 10 held out
a sample  a window of 8 tokens, of which there are 26, and for each the one after it
`},
		{Source{Source: Glyphs, Train: 50, Test: 10, Seed: 1}, `
samples      50 to train on, 10 held out
a sample     a picture of 28 by 28, 1 channels
to be found  one of 10 classes
`},
	} {
		train, test := open(t, c.s)
		var got strings.Builder
		if err := Describe(&got, train, test); err != nil {
			t.Fatal(err)
		}
		text, identity, _ := strings.Cut(got.String(), "identity")
		if "\n"+text != c.want || !strings.Contains(identity, Identity(train, test).String()) {
			t.Errorf("got\n%swant%s", got.String(), c.want)
		}
	}
}
