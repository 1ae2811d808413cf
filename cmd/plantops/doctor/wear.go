package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// checkWear reads what cards say about their age, as the kernel shows it since 4.11 (life_time: the share of life that is used,
// in steps of 10 %, for two kinds of memory; pre_eol_info: 1 normal, 2 most reserves used, 3 nearly all). JEDEC eMMC 5.0, EXT_CSD 267 to
// 269. Few SD cards tell.
func (p Patient) checkWear(r *Report) {
	cards, _ := filepath.Glob(filepath.Join(p.Root, "sys/block/mmcblk*/device"))
	told := false
	for _, card := range cards {
		name := filepath.Base(filepath.Dir(card))
		life, reserves := numbers(filepath.Join(card, "life_time")), numbers(filepath.Join(card, "pre_eol_info"))
		worst := 0
		for _, n := range life {
			worst = max(worst, n)
		}
		if worst == 0 && (len(reserves) == 0 || reserves[0] == 0) { // 0: not defined
			continue
		}
		told = true
		r.Add(wearFinding(name, worst, reserves))
	}
	switch {
	case len(cards) == 0:
		r.Add(Finding{Name: "card wear", State: Skip, Found: "this machine has no SD card or eMMC"})
	case !told:
		r.Add(Finding{Name: "card wear", State: Skip, Found: "the card does not tell; most SD cards do not"})
	}
}

func wearFinding(name string, life int, reserves []int) Finding {
	found := fmt.Sprintf("%s: up to %d %% of its life is used", name, min(life, 10)*10)
	if life > 10 {
		found = name + ": its life is over, as its maker reckoned it"
	}
	repair := "copy the data directory to a new card or an SSD soon"
	left := 1
	if len(reserves) > 0 {
		left = reserves[0]
	}
	switch {
	case left >= 3:
		return Finding{"card wear", Fail, found + "; nearly all reserves are used", repair}
	case life > 10:
		return Finding{"card wear", Fail, found, repair}
	case left == 2:
		return Finding{"card wear", Warn, found + "; most reserves are used", repair}
	case life >= 9:
		return Finding{"card wear", Warn, found, repair}
	}
	return Finding{Name: "card wear", State: OK, Found: found}
}

// numbers reads "0x01 0x02"; what is not there or no number is left out.
func numbers(path string) []int {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var list []int
	for _, word := range strings.Fields(string(text)) {
		if n, err := strconv.ParseInt(word, 0, 32); err == nil {
			list = append(list, int(n))
		}
	}
	return list
}
