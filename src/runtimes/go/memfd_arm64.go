package main

// The syscall package froze before memfd_create.
const sysMemfdCreate = 279
