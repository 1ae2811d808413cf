// Command check lets the clients of a scene loose on a broker of any make, kills it meanwhile if it is told how to start it,
// and says what was lost, doubled, reordered or stale. It ends with 1 when something was.
//
//	go run ./cmd/plantops/outside/history/check -address 127.0.0.1:1883 -broker 'mosquitto -c FILE' -kills 10
//
// It judges a history once more that was written before, too:
//
//	go run ./cmd/plantops/outside/history/check -strict -replay FILE
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/plantops/plantops/cmd/plantops/outside/history"
	"github.com/plantops/plantops/cmd/plantops/outside/history/scene"
)

func main() {
	faults, err := run(context.Background(), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(2)
	}
	if faults > 0 {
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (faults int, err error) {
	flags := flag.NewFlagSet("check", flag.ExitOnError)
	address := flags.String("address", "127.0.0.1:1883", "of the broker")
	line := flags.String("broker", "", "command line that starts it; without one it must run, and is not killed")
	kills := flags.Int("kills", 0, "how often it is killed and started again")
	length := flags.Duration("for", 10*time.Second, "how long, or between two kills at most")
	rate := flags.Float64("rate", 500, "messages a second of all publishers")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "repeats the choices")
	user, secret := flags.String("user", "", "account of all clients"), flags.String("password", "", "its password")
	strict := flags.Bool("strict", false, "share groups get back what a member leaves; the old connection of who is back at once is read to its end")
	examples := flags.Int("examples", 5, "faults of each kind that are shown")
	trace := flags.String("trace", "", "file for the whole history")
	replay := flags.String("replay", "", "file with a history that is judged, without a broker")
	bridged := flags.String("bridged", "", "client of another broker in that history, to which a bridge brought everything")
	_ = flags.Parse(args) // it exits

	rules := history.Rules{NoGiveBack: !*strict, Slack: 3 * time.Second}
	if !*strict {
		rules.Hasty = time.Second
	}
	if *replay != "" {
		rules.Bridged = *bridged
		return judge(*replay, rules, *examples)
	}
	s := scene.New(scene.Options{Address: *address, Account: scene.Account{User: *user, Secret: *secret}, Rate: *rate,
		Random: rand.New(rand.NewPCG(*seed, 0)), Rules: rules})
	broker := &scene.Command{Line: *line, Address: *address}
	if *line != "" {
		if err := broker.Start(); err != nil {
			return 0, err
		}
		defer func() { _ = broker.Kill() }()
	}
	s.Start(ctx)
	random := rand.New(rand.NewPCG(*seed, 1))
	for range *kills {
		<-time.After(time.Duration(random.Int64N(int64(*length))))
		var killed error
		if s.Kill(func() { killed = broker.Kill() }); killed != nil {
			return 0, killed
		}
		if err := broker.Start(); err != nil {
			return 0, err
		}
	}
	if *kills == 0 {
		<-time.After(*length)
	}
	h, err := s.End(ctx, 5*time.Second)
	if err != nil {
		return 0, err
	}
	found := history.Check(h, s.Rules)
	fmt.Printf("seed %d, %d kills: %s\n%s", *seed, *kills, history.Count(h), history.Summary(found, *examples))
	for _, complaint := range s.Complaints() {
		fmt.Println("complaint:", complaint)
	}
	if *trace != "" {
		return len(found), history.Write(*trace, h)
	}
	return len(found), nil
}

// judge says what is wrong with a history in a file.
func judge(path string, rules history.Rules, examples int) (faults int, err error) {
	h, err := history.Read(path)
	if err != nil {
		return 0, err
	}
	found := history.Check(h, rules)
	fmt.Printf("%s\n%s", history.Count(h), history.Summary(found, examples))
	return len(found), nil
}
