package pki

import (
	"crypto/tls"
	"errors"
	"testing"

	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
)

func TestAnAuthoritySurvivesEveryCrashOfItsMaking(t *testing.T) {
	recorder := durabletest.New()
	if _, err := initIn(recorder.Dir(), "example.org"); err != nil {
		t.Fatal(err)
	}
	recorder.Mark("made")
	states := 0
	for crash := range recorder.Crashes(durabletest.Options{Random: 40}) {
		states++
		_, err := initIn(crash.Dir(), "example.org")
		exists := err != nil && failure.Find(err).Class == failure.Exists
		if err != nil && !exists {
			t.Fatalf("%s: making it again: %v", crash, err)
		}
		if made := len(crash.Marks()) > 0; made && !exists {
			t.Fatalf("%s: the authority was made and is gone", crash)
		}
		if _, err := issueIn(crash.Dir(), "operator", "o", hostNames{}); err != nil {
			t.Fatalf("%s: issue: %v", crash, err)
		}
	}
	if states < 10 {
		t.Errorf("only %d states were tried", states)
	}
}

func TestACertificateSurvivesEveryCrashOfItsRenewal(t *testing.T) {
	recorder := durabletest.New()
	dir := recorder.Dir()
	if _, err := initIn(dir, "example.org"); err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{"first", "second"} {
		if _, err := issueIn(dir, "primary", "p", hostNames{}); err != nil {
			t.Fatal(err)
		}
		recorder.Mark(mark)
	}
	torn := 0
	for crash := range recorder.Crashes(durabletest.Options{Random: 10}) {
		promised := len(crash.Marks())
		err := checkPair(crash.Dir())
		if promised == 2 && err != nil {
			t.Fatalf("%s: the renewed pair: %v", crash, err)
		}
		if promised == 1 && err != nil {
			torn++
		}
		if promised == 0 {
			continue
		}
		if _, err := issueIn(crash.Dir(), "primary", "p", hostNames{}); err != nil {
			t.Fatalf("%s: issue again: %v", crash, err)
		}
		if err := checkPair(crash.Dir()); err != nil {
			t.Fatalf("%s: after issuing again: %v", crash, err)
		}
	}
	if torn == 0 {
		t.Error("no crash fell between key and certificate")
	}
}

// checkPair says whether the key and certificate of p fit, as every reader does.
func checkPair(dir durable.Dir) error {
	certificate, err := readFile(dir, "p/"+certificateFile)
	if err != nil {
		return err
	}
	key, err := readFile(dir, "p/"+keyFile)
	if err != nil {
		return err
	}
	if certificate == nil || key == nil {
		return errors.New("a file is missing")
	}
	_, err = tls.X509KeyPair(certificate, key)
	return err
}
