package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
)

func TestThreeHundredConnectionsAtOnce(t *testing.T) {
	const many = 300
	o := newOutside(t)
	var meeting sync.WaitGroup
	meeting.Add(many)
	o.serve(func(host *net.UnixConn) {
		asked := make([]byte, 4)
		if _, err := io.ReadFull(host, asked); err == nil {
			// Nobody is answered before all have asked.
			meeting.Done()
			meeting.Wait()
			_, _ = host.Write(asked)
		}
	})
	var clients sync.WaitGroup
	for i := range many {
		client := o.dial()
		clients.Add(1)
		go func() {
			defer clients.Done()
			asked := fmt.Sprintf("%04d", i)
			fmt.Fprint(client, asked)
			if answer, err := io.ReadAll(client); err != nil || string(answer) != asked {
				t.Errorf("%q to %q, %v", answer, asked, err)
			}
		}()
	}
	clients.Wait()
}

func TestOneConnectionTooManyIsRefusedAndTheRestGoOn(t *testing.T) {
	o := newOutside(t)
	o.proxy.limit = 3
	o.serve(func(host *net.UnixConn) { _, _ = io.Copy(host, host) })
	var held []*net.TCPConn
	for range 3 {
		held = append(held, o.dial())
	}
	waitFor(t, "all places are taken", func() bool { return o.carried() == 3 })
	client := &http.Client{Timeout: testTimeout}
	answer, err := client.Post("http://127.0.0.1:"+o.port+"/actions", "application/json", bytes.NewReader(make([]byte, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	checkRefusal(t, answer, "Too many")
	for _, connection := range held {
		fmt.Fprint(connection, "still")
		_ = connection.CloseWrite()
		if answer := readAll(t, connection); string(answer) != "still" {
			t.Errorf("answer %q", answer)
		}
	}
	waitFor(t, "there is room again", func() bool { return o.carried() == 0 })
	if answer := echo(o.dial(), "again"); answer != "again" {
		t.Errorf("answer %q", answer)
	}
}

func echo(connection *net.TCPConn, text string) string {
	fmt.Fprint(connection, text)
	_ = connection.CloseWrite()
	answer, _ := io.ReadAll(connection)
	connection.Close()
	return string(answer)
}

func TestConnectionsLeaveDescriptorsToTheRest(t *testing.T) {
	for _, files := range []int{64, 100, 256, 1024, 4096} {
		limit := connectionsWithin(files)
		if used := 2*limit + min(mostRefusals, max(1, limit/4)); used > files-keptDescriptors || limit > mostConnections {
			t.Errorf("%d connections with refusals take %d of %d descriptors", limit, used, files)
		}
	}
	if limit := connectionsWithin(1024); limit != mostConnections {
		t.Errorf("%d connections within the usual limit", limit)
	}
}
