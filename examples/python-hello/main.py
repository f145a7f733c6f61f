import os


def main():
    print(f"Hello, {os.environ.get('NAME', 'World')}!")


if __name__ == "__main__":
    main()
