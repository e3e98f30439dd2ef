from geodapt.cli import main

main()
