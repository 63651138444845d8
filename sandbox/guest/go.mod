module awgp.example.com/sandbox/guest

go 1.22
