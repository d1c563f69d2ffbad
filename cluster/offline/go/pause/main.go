// Command pause holds a pod's namespaces open: it waits to be told to end, and buries the processes that it inherits.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	died := make(chan os.Signal, 8)
	signal.Notify(died, syscall.SIGCHLD)
	for {
		select {
		case <-end:
			return
		case <-died:
			bury()
		}
	}
}

func bury() {
	for {
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
			return
		}
	}
}
