package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestAnIndexKeepsTheOrderOfKeysInWhateverOrderTheyCome(t *testing.T) {
	const count = 5000
	random := rand.New(rand.NewPCG(1, 2))
	rising := make([]int, count)
	for i := range rising {
		rising[i] = i
	}
	falling := slices.Clone(rising)
	slices.Reverse(falling)
	for name, order := range map[string][]int{"rising": rising, "falling": falling, "random": random.Perm(count)} {
		var names texts
		var places []text
		index := sorted{key: func(number uint32) []byte { return names.get(places[number]) }}
		for _, i := range order {
			key := fmt.Sprintf("key-%05d", i)
			if _, found := index.find(key); found {
				t.Fatalf("%s: %s is there before it came", name, key)
			}
			places = append(places, names.add(key))
			index.add(uint32(len(places) - 1))
		}
		for number, i := range order {
			if got, found := index.find(fmt.Sprintf("key-%05d", i)); !found || got != uint32(number) {
				t.Fatalf("%s: key %d is lost", name, i)
			}
		}
		next := 100
		index.from("key-00099x", func(number uint32) bool {
			if got := string(index.key(number)); got != fmt.Sprintf("key-%05d", next) {
				t.Fatalf("%s: %s comes instead of key %d", name, got, next)
			}
			next++
			return true
		})
		if next != count {
			t.Fatalf("%s: the walk ends at %d", name, next)
		}
		for i, block := range index.blocks {
			if block.length == 0 || name == "rising" && i < len(index.blocks)-1 && block.length < pieceLength {
				t.Fatalf("%s: block %d has %d numbers", name, i, block.length)
			}
		}
	}
}

func TestAnEmptyIndexHasNothing(t *testing.T) {
	index := sorted{}
	if _, found := index.find("x"); found {
		t.Fatal("something was found")
	}
	index.from("", func(uint32) bool { t.Fatal("something came"); return false })
}

func TestTextsStayWhatTheyWereAcrossBlocks(t *testing.T) {
	var kept texts
	var places []text
	for i := range 10_000 {
		places = append(places, kept.add(strings.Repeat("x", i%65)))
	}
	for i, place := range places {
		if len(kept.get(place)) != i%65 {
			t.Fatalf("text %d has %d bytes", i, len(kept.get(place)))
		}
	}
	if len(kept.blocks) < 4 {
		t.Fatalf("%d blocks test little", len(kept.blocks))
	}
}
