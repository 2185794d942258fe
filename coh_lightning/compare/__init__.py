"""`coh compare STUDY`: methods, worlds, base models and seeds compared by ordinary fits and tests, resumable.

    study_file   the study as its file states it, checked
    rows         one row: a fit and its evaluation, with its settings' key; their order
    steps        the commands of a row: world folder, fit, tests; what each leaves
    processes    commands in forked processes of their own, and the rows' order of execution
    results      one line of figures and per-prompt scores for each finished row, which outlives the run folders
    statistics   intervals over seeds, base models and prompts; paired differences; Holm
    summary      results -> compare.json
    report       compare.json -> the table in the terminal, report.html, the tables of a Markdown page

Nothing here imports torch: the commands do, in their own processes.
"""
