package listing

import (
	"context"
	"errors"
	"time"

	"github.com/plantops/plantops/store"
)

// Each calls do with what q selects, in order of time, and returns how many there were. With a limit these are the newest; newest is the time of the newest
// reading of all that q could select, UTC ms. What is damaged is passed over: then the error, a *store.DamagedError, comes at the end.
func Each(ctx context.Context, db *store.Store, q store.Query, newest int64, do func(store.Reading) error) (int, error) {
	if q.Limit > 0 {
		list, err := newestReadings(ctx, db, q, newest)
		if err != nil && !isDamage(err) {
			return 0, err
		}
		for _, r := range list {
			if doErr := do(r); doErr != nil {
				return len(list), doErr
			}
		}
		return len(list), err
	}
	count := 0
	var damage error
	for r, err := range db.Readings(ctx, q) {
		if isDamage(err) {
			damage = errors.Join(damage, err)
			continue
		}
		if err == nil {
			err = do(r)
		}
		if err != nil {
			return count, err
		}
		count++
	}
	return count, damage
}

// newestReadings returns the last of what q selects, q.Limit of them. It looks back from the newest reading in steps that
// grow: the database goes through time forwards only, and there may be years of it.
func newestReadings(ctx context.Context, db *store.Store, q store.Query, newest int64) ([]store.Reading, error) {
	limit, from, end := q.Limit, q.From, newest+1
	if q.To != 0 && q.To < end {
		end = q.To
	}
	q.Limit = 0
	for span := time.Hour.Milliseconds(); ; span *= 6 {
		q.From = end - span
		if every := q.Every.Milliseconds(); every > 0 {
			q.From -= (q.From%every + every) % every // a mean is of a whole span
		}
		everything := q.From <= from
		if everything {
			q.From = from
		}
		var list []store.Reading
		var damage error
		for r, err := range db.Readings(ctx, q) {
			if isDamage(err) {
				damage = errors.Join(damage, err)
				continue
			}
			if err != nil {
				return nil, err
			}
			if list = append(list, r); len(list) >= 2*limit+1024 {
				list = append(list[:0], list[len(list)-limit:]...)
			}
		}
		if len(list) >= limit || everything {
			return list[max(0, len(list)-limit):], damage
		}
	}
}

func isDamage(err error) bool {
	var damaged *store.DamagedError
	return errors.As(err, &damaged)
}
