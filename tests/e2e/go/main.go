// Programs of the end-to-end tests: a statically linked client and server, which no preloaded library can change.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
}

func save(file string, from io.Reader) {
	to, err := os.Create(file)
	check(err)
	_, err = io.Copy(to, from)
	check(err)
	check(to.Close())
}

// fetch URL FILE
func fetch(url, file string) {
	answer, err := http.Get(url)
	check(err)
	save(file, answer.Body)
	check(answer.Body.Close())
}

// serve ADDRESS FOLDER
func serve(address, folder string) {
	check(http.ListenAndServe(address, http.FileServer(http.Dir(folder))))
}

// isMultipath says what Go knows of a connection (net.TCPConn.MultipathTCP).
func isMultipath(connection net.Conn) bool {
	is, err := connection.(*net.TCPConn).MultipathTCP()
	check(err)
	return is
}

// echo ADDRESS: answers each connection, and prints who it was and whether it uses MPTCP.
func echo(address string) {
	config := net.ListenConfig{}
	config.SetMultipathTCP(true)
	listener, err := config.Listen(context.Background(), "tcp", address)
	check(err)
	for {
		connection, err := listener.Accept()
		check(err)
		_, err = io.Copy(connection, connection)
		check(err)
		fmt.Printf("%s multipath=%v\n", connection.RemoteAddr().(*net.TCPAddr).IP, isMultipath(connection))
		check(connection.Close())
	}
}

// send ADDRESS FILE COPY: sends the file to an echo server and saves what comes back.
func send(address, file, copy string, multipath bool) {
	dialer := net.Dialer{}
	dialer.SetMultipathTCP(multipath)
	connection, err := dialer.Dial("tcp", address)
	check(err)
	from, err := os.Open(file)
	check(err)
	go func() {
		_, err := io.Copy(connection, from)
		check(err)
		check(connection.(*net.TCPConn).CloseWrite())
	}()
	save(copy, connection)
	fmt.Printf("multipath=%v\n", isMultipath(connection))
}

func main() {
	arguments := append(os.Args[1:], "", "", "", "")
	switch arguments[0] {
	case "fetch":
		fetch(arguments[1], arguments[2])
	case "serve":
		serve(arguments[1], arguments[2])
	case "echo":
		echo(arguments[1])
	case "send":
		send(arguments[1], arguments[2], arguments[3], arguments[4] != "tcp")
	default:
		fmt.Fprintln(os.Stderr, "fetch URL FILE | serve ADDRESS FOLDER | echo ADDRESS | send ADDRESS FILE COPY [tcp]")
		os.Exit(2)
	}
}
