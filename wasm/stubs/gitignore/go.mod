module github.com/crackcomm/go-gitignore

go 1.26.0
